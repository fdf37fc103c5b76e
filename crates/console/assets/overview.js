// The overview: the cluster in numbers, plots of the last minutes, and each node.

import {
  actButton, badge, bar, bytes, classesOf, clock, count, duration, h, lost, num, number, rate,
  small, sum, svg, table, words,
} from './lib.js';

// --- What was in the last minutes -----------------------------------------------------------

const WINDOW = 180_000;
const LOSSES = [
  ['coalesced', 'the same notice was still unread', false],
  ['conflated', 'a newer value took its place', false],
  ['dropped', 'removed to make room', true],
  ['refused', 'progress that did not increase', false],
  ['closed', 'its stream was closed', true],
];

/** One for each answer: `{ t, nodes: { one: rates }, failed: Set of nodes }`. */
let ticks = [];
/** The counters of each node in its last answer. */
const last = new Map();

/** Notes an answer of `overview`. The rates are differences to the node's answer before. */
export function record(envelope) {
  const t = envelope.at;
  if (t <= ticks.at(-1)?.t) return;
  const tick = { t, nodes: {}, failed: new Set() };
  ticks = [...ticks.filter((each) => each.t > t - WINDOW - 5000), tick];
  for (const { node, answer } of envelope.nodes) {
    if (!answer) {
      tick.failed.add(node);
      continue;
    }
    const before = last.get(node);
    last.set(node, { t, upMs: answer.upMs, frames: answer.frames });
    // A node that was started again counts from zero.
    if (!before || answer.upMs < before.upMs) continue;
    const rates = perSecond(answer.frames, before.frames, (t - before.t) / 1000);
    // Its answer also says what was in the seconds in which it did not answer.
    for (const each of ticks.filter((each) => each.t > before.t)) {
      each.nodes[node] = rates;
      each.failed.delete(node);
    }
  }
}

function perSecond(now, before, seconds) {
  const rates = { delivered: {} };
  const between = (a, b) => Math.max(0, (a ?? 0) - (b ?? 0)) / seconds;
  for (const [name, n] of Object.entries(now.delivered)) {
    rates.delivered[name] = between(n, before.delivered[name]);
  }
  for (const [name] of LOSSES) {
    const total = (frames) => typeof frames[name] === 'object' ? sum(frames[name]) : frames[name];
    rates[name] = between(total(now), total(before));
  }
  return rates;
}

/** The ticks with the rates of the nodes that are looked at, added up. */
function series(scope) {
  const all = ticks.filter((tick) => tick.t > ticks.at(-1).t - WINDOW).map((tick) => {
    const point = { t: tick.t, delivered: {}, known: false };
    point.failed = [...tick.failed].filter((node) => !scope || node === scope);
    for (const [node, rates] of Object.entries(tick.nodes)) {
      if (scope && node !== scope) continue;
      point.known = true;
      for (const [name, n] of Object.entries(rates.delivered)) {
        point.delivered[name] = (point.delivered[name] ?? 0) + n;
      }
      for (const [name] of LOSSES) point[name] = (point[name] ?? 0) + rates[name];
    }
    return point;
  });
  return all.filter((point) => point.known);
}

// --- Plots ----------------------------------------------------------------------------------

const W = 600;
/** The time that is read off with the pointer or the arrow keys; `null` is now. */
let cursor = null;

const nice = (n) => {
  const power = 10 ** Math.floor(Math.log10(n || 1));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= n) ?? n;
};

/** An area between two curves, in a piece for each time without a pause of the polls. */
function area(points, x, low, high, props) {
  const pieces = [];
  points.forEach((point, i) => {
    if (i === 0 || point.t - points[i - 1].t > 6000) pieces.push([]);
    pieces.at(-1).push(`${x(point.t).toFixed(1)},`);
  });
  let i = 0;
  const d = pieces.map((piece) => {
    const up = piece.map((at, k) => at + high(i + k).toFixed(1));
    const down = piece.map((at, k) => at + low(i + k).toFixed(1));
    i += piece.length;
    return `M${up.join('L')}L${down.reverse().join('L')}Z`;
  }).join('');
  return svg('path', { d, ...props });
}

function frame(ctx, points, height, children) {
  const end = points.at(-1)?.t ?? 0;
  const x = (t) => W - (end - t) / WINDOW * W;
  const nearest = (t) => points.reduce((a, b) => Math.abs(b.t - t) < Math.abs(a.t - t) ? b : a).t;
  const move = (to) => {
    cursor = to;
    ctx.draw();
  };
  const keys = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !points.length) return;
    event.preventDefault();
    const at = points.findIndex((point) => point.t === (cursor ?? end)) + step;
    move(at >= points.length - 1 ? null : points[Math.max(0, at)].t);
  };
  return svg('svg', {
    viewBox: `0 0 ${W} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true',
    onpointermove: (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      if (points.length) move(nearest(end - (box.right - event.clientX) / box.width * WINDOW));
    },
    onpointerleave: () => move(null),
    onkeydown: keys,
  },
  children(x),
  cursor && svg('line', { x1: x(cursor), x2: x(cursor), y1: 0, y2: height, class: 'cursor' }));
}

/** A group that takes the arrow keys for the plots in it. */
function plot(name, title, readout, ...children) {
  const forward = (event) => {
    if (event.target === event.currentTarget) {
      event.currentTarget.querySelector('svg')?.onkeydown(event);
    }
  };
  return h('section', {
    class: `panel plot ${name}`, id: `plot-${name}`, tabindex: 0, onkeydown: forward, role: 'group',
    'aria-label': `${title}. The arrow keys read earlier seconds.`,
  },
  h('header', null, h('h2', null, title), h('p', { class: 'readout' }, readout)),
  ...children);
}

const axis = () => h('div', { class: 'axis', 'aria-hidden': 'true' },
  h('span', null, '3 min ago'), h('span', null, '2'), h('span', null, '1'), h('span', null, 'now'));

function delivered(ctx, points, point, readout) {
  const classes = classesOf(...points.map((each) => each.delivered));
  // Heights of the stack: levels[k][i] is the top of class k at point i.
  let below = points.map(() => 0);
  const levels = classes.map((name) => {
    below = below.map((n, i) => n + (points[i].delivered[name] ?? 0));
    return below;
  });
  const top = nice(Math.max(1, ...below));
  const y = (n) => 200 - n / top * 200;
  const shown = point?.delivered ?? {};
  return plot('delivered', 'Frames delivered a second', readout,
    h('div', { class: 'with-legend' },
      h('div', null,
        h('div', { class: 'canvas' },
          frame(ctx, points, 200, (x) => [
            [0.5, 0].map((part) =>
              svg('line', { x1: 0, x2: W, y1: 200 * part, y2: 200 * part, class: 'grid' })),
            classes.map((name, k) => area(points, x,
              (i) => y(k ? levels[k - 1][i] : 0), (i) => y(levels[k][i]), { class: `c-${name} band` })),
            points.filter((each) => each.failed.length).map((each) =>
              svg('line', { x1: x(each.t), x2: x(each.t), y1: 194, y2: 200, class: 'gap' })),
          ]),
          h('span', { class: 'scale' }, rate(top)), h('span', { class: 'scale half' }, rate(top / 2))),
        axis()),
      h('dl', { class: 'legend' },
        h('div', { class: 'total' }, h('dt', null, 'all classes'), h('dd', null, rate(sum(shown)))),
        classes.toReversed().map((name) => h('div', { 'data-class': name },
          h('dt', null, h('span', { class: `swatch c-${name}` }), words(name)),
          h('dd', null, rate(shown[name])))))));
}

function losses(ctx, points, point, readout) {
  return plot('losses', 'Not delivered, a second', readout,
    LOSSES.map(([name, why, wrong]) => {
      const top = Math.max(0, ...points.map((each) => each[name]));
      return h('div', { class: `strip${wrong && top ? ' lossy' : ''}`, 'data-loss': name },
        h('div', { class: 'strip-name' }, h('b', null, wrong && top ? '▲ ' : '', name),
          h('span', { class: 'small' }, why)),
        h('div', { class: 'canvas low' },
          frame(ctx, points, 30, (x) => area(points, x, () => 30,
            (i) => 30 - points[i][name] / (top || 1) * 27, { class: 'loss' }))),
        h('div', { class: `strip-value${point?.[name] ? '' : ' none'}` }, h('b', null, rate(point?.[name])),
          h('span', { class: 'small' }, top ? `most ${rate(top)}` : 'none')));
    }),
    h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', null, '3 min ago'), h('span', null, 'now')));
}

// --- The view -------------------------------------------------------------------------------

/** Adds up the counters of frames of several nodes. */
function addFrames(all) {
  const total = { delivered: {}, coalesced: {}, dropped: {}, conflated: 0, refused: 0, closed: 0 };
  for (const frames of all) {
    for (const [name, n] of Object.entries(frames)) {
      if (typeof n === 'number') total[name] += n;
      else for (const [one, m] of Object.entries(n)) total[name][one] = (total[name][one] ?? 0) + m;
    }
  }
  return total;
}

/** What became of frames, by class. Also on the page of a session. */
export function framesTable(frames) {
  const rows = classesOf(frames.delivered, frames.coalesced, frames.dropped);
  const cell = (kind, wrong) => (name) => number(frames[kind][name] ?? 0, wrong);
  return [
    table('Frames by class', [
      { head: 'class', cell: (name) =>
        h('span', { class: 'line' }, h('span', { class: `swatch c-${name}` }), words(name)) },
      { head: 'delivered', num: true, cell: cell('delivered') },
      { head: 'coalesced', num: true, cell: cell('coalesced') },
      { head: 'dropped', num: true, cell: cell('dropped', true) },
    ], rows, (name) => ({ 'data-class': name })),
    h('p', { class: 'small' }, `Of all classes: ${num(frames.conflated)} conflated, `,
      `${num(frames.refused)} refused, `,
      h('span', { class: frames.closed ? 'wrong' : '' }, `${num(frames.closed)} closed`), '.'),
  ];
}

const kinds = (sessions) =>
  Object.entries(sessions).filter(([, n]) => n).map(([kind, n]) => `${num(n)} ${kind}`);

const card = (id, label, value, detail, wrong) =>
  h('div', { class: `card${wrong ? ' wrong-card' : ''}`, 'data-card': id },
    h('dt', null, label), h('dd', { class: 'big' }, value), h('dd', { class: 'small' }, detail));

export const STATES = { running: 'ok', joining: 'wait', leaving: 'wait', draining: 'wait', ended: 'off' };

function stateOf({ answer, error, stale }) {
  if (error && !answer) return [badge('bad', 'not asked'), h('div', { class: 'small wrong' }, error)];
  return [
    error ? badge('bad', 'not asked') : badge(STATES[answer.state] ?? 'wait', answer.state),
    h('div', { class: `small${error ? ' wrong' : ' line'}` },
      error ? `${error}; as of ${clock(stale)}` : `up for ${duration(answer.upMs)}`),
  ];
}

export const overview = {
  title: 'Overview',
  // It has no `load`: what it shows is asked for on every view, for the list of nodes.
  render(ctx) {
    const nodes = ctx.all.filter(({ node }) => !ctx.scope || node === ctx.scope);
    const answers = nodes.filter(({ answer }) => answer).map(({ answer }) => answer);
    const total = (of) => answers.reduce((all, answer) => all + (of(answer) ?? 0), 0);
    const frames = addFrames(answers.map((answer) => answer.frames));

    const points = ticks.length ? series(ctx.scope) : [];
    if (!points.some((point) => point.t === cursor)) cursor = null;
    const point = cursor ? points.find((each) => each.t === cursor) : points.at(-1);
    const when = !point ? 'after the second answer'
      : cursor ? `${clock(cursor)}, ${duration(points.at(-1).t - cursor)} ago` : `now, ${clock(point.t)}`;
    const readout = point?.failed.length ? `${when}, without ${point.failed.join(', ')}` : when;

    const sessions = {};
    for (const answer of answers) {
      for (const [kind, n] of Object.entries(answer.sessions)) sessions[kind] = (sessions[kind] ?? 0) + n;
    }
    const held = total((answer) => answer.held.bytes);
    const limit = total((answer) => answer.held.budget);
    // What was lost hours ago is no alarm.
    const losing = points.some((each) => each.dropped + each.closed > 0);
    const restarts = total((answer) => answer.recentRestarts);
    const crashes = total((answer) => answer.crashes);

    return [
      h('dl', { class: 'cards' },
        card('sessions', 'Sessions', num(sum(sessions)), kinds(sessions).join(' · ')),
        card('calls', 'Calls', num(total((a) => a.calls.running)),
          `${num(total((a) => a.calls.awaitingInput))} await input`),
        card('tasks', 'Tasks', num(total((a) => a.tasks)), 'not yet ended'),
        card('subscribers', 'Subscribers', num(total((a) => a.subscribers)),
          `${num(total((a) => a.published))} published`),
        card('memory', 'Memory', bytes(total((a) => a.memoryBytes)), `on ${count(answers.length, 'node')}`),
        card('held', 'Held for clients', bytes(held), bar(held, limit, `of ${bytes(limit)}`, 'held')),
        card('lost', 'Frames lost', num(lost(frames)), losing ? 'some in the last 3 minutes'
          : 'dropped, or on closed streams', losing),
        card('restarts', 'Restarts', num(restarts), `lately; ${count(crashes, 'crash', 'crashes')} in all`,
          restarts > 0)),

      h('div', { class: 'plots', 'data-key': 'plots' },
        delivered(ctx, points, point, readout), losses(ctx, points, point, readout)),

      h('h2', null, 'Nodes'),
      table('Nodes', [
        { head: 'node', cell: ({ node }) => h('b', null, node) },
        { head: 'state', cell: (entry) => [stateOf(entry), entry.answer && links(entry.answer.links),
          entry.answer && unseen(ctx, entry)] },
        { head: 'sessions', class: 'row', cell: ({ answer }) => answer &&
          [num(sum(answer.sessions)), [...kinds(answer.sessions), count(answer.subscribers, 'subscriber')]
            .map((text) => h('div', { class: 'small line' }, text))] },
        { head: 'calls', num: true, cell: ({ answer }) => answer && [num(answer.calls.running),
          small(`${num(answer.calls.awaitingInput)} await input`),
          small(count(answer.tasks, 'task'))] },
        { head: 'memory', num: true, cell: ({ answer }) => bytes(answer?.memoryBytes) },
        { head: 'held for clients', cell: ({ answer }) => answer && budget('held', answer.held) },
        { head: 'requests', cell: ({ answer }) => answer && budget('requests', answer.requests) },
        { head: 'restarts', num: true, cell: ({ answer }) => answer && [number(answer.recentRestarts, true),
          small(count(answer.crashes, 'crash', 'crashes'))] },
        { head: 'actors at work', class: 'row', cell: ({ answer }) => answer && Object.entries(answer.pools)
          .map(([name, { working, idle }]) =>
            h('div', { class: 'small line' }, `${name} ${num(working)} of ${num(working + idle)}`)) },
        { head: 'revision', num: true, cell: ({ answer }) => answer && [num(answer.revision),
          small(answer.openWindows ? `${count(answer.openWindows, 'window')} open` : '')] },
        ...ctx.mayAct ? [{ head: 'action', cell: ({ node, answer, error }) =>
          answer?.state === 'running' && !error && drain(ctx, node) }] : [],
      ], nodes, ({ node, error }) => ({
        'data-node': node, 'data-key': node, 'data-failed': error ? 'true' : 'false',
        class: error ? 'failed' : '',
      })),

      h('details', { class: 'panel', 'data-key': 'frames' },
        h('summary', null, `What became of frames since the start, on ${ctx.scope || 'all nodes'}`),
        framesTable(frames)),
    ];
  },
};

function budget(name, { bytes: used, budget: all }) {
  const [n, unit] = bytes(used).split(' ');
  return bar(used, all, `${bytes(all).endsWith(unit) ? n : `${n} ${unit}`} of ${bytes(all)}`, name);
}

/** Links to other nodes, and what they have not handled yet. */
function links(all) {
  const alive = all.filter(({ state }) => state === 'alive');
  const connected = alive.filter((link) => link.connected);
  const waits = all.reduce((sum, { inFlight }) => sum + inFlight, 0);
  return alive.length > 0 && [
    h('div', { class: `small ${connected.length < alive.length ? 'wrong' : 'line'}` },
      `${connected.length} of ${count(alive.length, 'link')}`),
    waits > 0 && h('div', { class: 'small line' }, `${bytes(waits)} in flight`),
  ];
}

/** Nodes that this one does not know although they are there: the cluster is split. */
function unseen(ctx, { node, answer }) {
  const missing = ctx.all.filter((other) => other.node !== node && !answer.peers.includes(other.node));
  return missing.length > 0 &&
    h('div', { class: 'small wrong' }, `▲ does not see ${missing.map((other) => other.node).join(', ')}`);
}

const drain = (ctx, node) => actButton(ctx, {
  label: 'Drain', title: `Drain node ${node}?`, node, body: { action: 'drain' }, quiet: true,
  text: [
    `Node ${node} takes no new sessions from then on, and lets what runs come to an end.`,
    'It cannot be taken back from here: to use the node again, start it again.',
  ],
});
