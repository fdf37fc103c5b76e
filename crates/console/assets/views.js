// The other views: actors, catalog, events, tasks, log.

import {
  alarm, badge, clock, code, count, duration, field, get, h, has, nothing, num, number, small,
  table, tag, tags, words,
} from './lib.js';

const sessionLink = (ctx, node, id) =>
  id && h('a', { class: 'id', href: ctx.href(`session/${node}/${id}`) }, id);

/** Tells of nodes without the part that a view shows. */
const absent = (ctx, what) => {
  const without = ctx.answers.filter(({ answer }) => answer.absent).map(({ node }) => node);
  return without.length > 0 && nothing(`No ${what} on ${without.join(', ')}.`);
};

// --- Actors ---------------------------------------------------------------------------------

/** What the reader opened or closed. Parents with many children are closed at first. */
const opened = new Map();

function flat(node, depth, path, rows) {
  const { children = [], more = 0 } = node;
  const open = opened.get(path) ?? children.length <= 12;
  rows.push({ ...node, depth, path, open, parent: children.length + more > 0 });
  if (!open) return rows;
  children.forEach((child, i) =>
    flat(child, depth + 1, `${path}/${child.session ?? `${child.name}${i}`}`, rows));
  if (more) rows.push({ depth: depth + 1, path: `${path}/more`, rest: more });
  return rows;
}

const ACTOR_STATES = {
  running: 'ok', idle: 'off', passive: 'off', stopped: 'off', crashed: 'bad', failed: 'bad',
};

function actorCell(ctx, row) {
  const toggle = () => {
    opened.set(row.path, !row.open);
    ctx.draw();
  };
  const name = row.session ? sessionLink(ctx, row.node, row.session) : h('b', null, row.name);
  return h('div', { class: 'indent', style: { '--depth': row.depth } },
    row.parent ? h('button', {
      type: 'button', class: 'twist', 'aria-expanded': String(row.open), onclick: toggle,
      'aria-label': `what is below ${row.name}`,
    }, row.open ? '▾' : '▸') : h('span', { class: 'twist' }),
    row.rest ? h('span', { class: 'small' }, `and ${num(row.rest)} more, not shown`)
      : h('span', null, name, ' ', row.kind !== row.name || row.session ? tag(row.kind) : ''));
}

export const actors = {
  title: 'Actors',
  every: 2,
  load: ({ scope }) => get('actors', { node: scope }),
  render(ctx) {
    const rows = ctx.answers.flatMap(({ node, answer, error }) =>
      flat({ name: node, kind: 'node', children: [answer.tree] }, 0, node, [])
        .map((row) => ({ ...row, node, stale: Boolean(error) })));
    const crashes = ctx.answers
      .flatMap(({ node, answer }) => answer.crashes.map((crash) => ({ ...crash, node })))
      .sort((a, b) => b.at - a.at);
    const only = (of) => (row) => row.state ? of(row) : null;
    return [
      table('Actors', [
        { head: 'actor', wide: true, cell: (row) => actorCell(ctx, row) },
        { head: 'state', cell: only((row) => badge(ACTOR_STATES[row.state] ?? 'wait', row.state)) },
        { head: 'mailbox', num: true, cell: only((row) => number(row.mailbox)) },
        { head: 'age', num: true, cell: only((row) => duration(row.ageMs)) },
        { head: 'restarts', num: true, cell: only((row) => number(row.restarts, true)) },
        { head: 'detail', wide: true, cell: only((row) => row.detail) },
      ], rows, (row) => ({
        'data-key': row.path, 'data-actor': row.kind, 'data-node': row.kind === 'node' && row.node,
        class: row.stale ? 'stale' : '',
      }), 'stays'),
      h('h2', { id: 'crashes' }, 'Crashes'),
      crashes.length === 0 ? nothing('No actor crashed.') : table('Crashes', [
        { head: 'time', cell: (crash) => [clock(crash.at),
          h('div', { class: 'small line' }, `${duration(ctx.now - crash.at)} ago`)] },
        { head: 'node', cell: (crash) => crash.node },
        { head: 'actor', cell: (crash) => badge('bad', crash.actor) },
        { head: 'session', wide: true, cell: (crash) => sessionLink(ctx, crash.node, crash.session) },
        { head: 'reason', wide: true, cell: (crash) => crash.reason },
      ], crashes, (crash) => ({ 'data-crash': crash.actor })),
    ];
  },
};

// --- Catalog --------------------------------------------------------------------------------

const SHOWN = 200;

/** One entry for each item, with what any node says of it. */
function items(answers) {
  const all = new Map();
  for (const { node, answer } of answers) {
    for (const item of answer.items) {
      const id = `${item.kind} ${item.key}`;
      const seen = all.get(id) ?? { ...item, id, hidden: [], conflicts: false };
      seen.nodes = [...new Set([...seen.nodes, ...item.nodes])].sort();
      if (item.conflict) {
        seen.conflicts = true;
        const hidden = [...item.conflict.hidden, ...item.conflict.localIsHidden ? [node] : []];
        seen.hidden = [...new Set([...seen.hidden, ...hidden])].sort();
      }
      all.set(id, seen);
    }
  }
  return [...all.values()];
}

function rules(item) {
  if (!item.restricted && !item.labels.length && !item.scopes.length) {
    return h('span', { class: 'zero' }, 'everybody');
  }
  return [
    item.labels.length > 0 && small('seen by ', tags(item.labels)),
    item.scopes.length > 0 && small('used with ', tags(item.scopes)),
    !item.labels.length && !item.scopes.length && 'restricted by a function',
  ];
}

export const catalog = {
  title: 'Catalog',
  every: 4,
  load: ({ params, scope }) => get('catalog', { principal: params.principal, node: scope }),
  render(ctx) {
    const { text, kind, conflicts, all } = ctx.params;
    const found = items(ctx.answers).filter((item) =>
      (!kind || item.kind === kind) && (!conflicts || item.conflicts) &&
      has(text, item.key, item.title, item.description));
    const wrong = found.filter((item) => item.conflicts).length;
    const shown = all ? found : found.slice(0, SHOWN);
    const more = ctx.answers.reduce((sum, { answer }) => sum + answer.more, 0);
    return [
      h('div', { class: 'filters', role: 'search' },
        field(ctx, 'Search', 'text', { search: true, placeholder: 'key, title, description' }),
        field(ctx, 'Kind', 'kind', { choices: [['', 'all'], ['tool', 'tools'], ['resource', 'resources'],
          ['template', 'templates'], ['prompt', 'prompts']] }),
        field(ctx, 'Show', 'conflicts', { choices: [['', 'all items'], ['yes', 'conflicts only']] }),
        field(ctx, 'As principal', 'principal', { placeholder: 'everything' })),
      h('p', { class: 'summary' }, `${count(found.length, 'item')}`,
        ctx.params.principal ? ` as ${ctx.params.principal} sees them` : '', '. ',
        wrong ? alarm(`${count(wrong, 'conflict')}. `) : 'No conflicts. ',
        more ? `${num(more)} more are not shown. ` : '',
        h('span', { class: 'small' }, 'Revisions: ',
          ctx.answers.map(({ node, answer }) => `${node} ${num(answer.revision)}`).join(', '))),
      found.length === 0 ? nothing('No item matches.') : table('Catalog', [
        { head: 'item', wide: true, cell: (item) => [code(item.key),
          item.title && item.title !== item.key ? h('span', null, ' ', item.title) : '',
          small(item.description ?? '')] },
        { head: 'kind', cell: (item) => tag(item.kind) },
        { head: 'offered by', cell: (item) => h('span', { class: 'line' }, tags(item.nodes)) },
        { head: 'for', wide: true, cell: rules },
        { head: 'conflict', wide: true, cell: (item) => item.conflicts ? [badge('bad', 'conflict'),
          h('div', { class: 'small wrong' }, 'nodes define it differently; hidden: that of ',
            item.hidden.join(', ') || 'no node')]
          : h('span', { class: 'zero' }, 'none') },
      ], shown, (item) => ({
        'data-key': item.id, 'data-item': item.key, 'data-kind': item.kind,
        'data-conflict': String(item.conflicts), class: item.conflicts ? 'bad-row' : '',
      })),
      shown.length < found.length && h('p', { class: 'pager' }, h('button', {
        type: 'button', onclick: () => ctx.set({ all: 'yes' }),
      }, `Show all ${num(found.length)}`)),
    ];
  },
};

// --- Events ---------------------------------------------------------------------------------

export const events = {
  title: 'Events',
  every: 2,
  load: ({ scope }) => get('events', { node: scope }),
  render(ctx) {
    const present = ctx.answers.filter(({ answer }) => !answer.absent);
    const of = (what) =>
      present.flatMap(({ node, answer }) => answer[what].map((each) => ({ ...each, node })));
    const hooks = of('webhooks')
      .filter(({ type, url, principal, state }) => has(ctx.params.text, type, url, principal, state))
      .sort((a, b) => b.failures - a.failures);
    const failing = hooks.filter((hook) => hook.failures).length;
    return [
      absent(ctx, 'events extension'),
      present.length > 0 && [
        h('h2', null, 'Types'),
        table('Event types', [
          { head: 'type', wide: true, cell: (type) => [code(type.name),
            small(type.description ?? '')] },
          { head: 'node', cell: (type) => type.node },
          { head: 'modes', cell: (type) => tags(type.modes) },
          { head: 'streams', num: true, cell: (type) => number(type.streams) },
          { head: 'webhooks', num: true, cell: (type) => number(type.webhooks) },
          { head: 'in the log', num: true, cell: (type) => [num(type.log.entries),
            small(`up to ${num(type.log.end)}`)] },
        ], of('types'), (type) => ({ 'data-type': type.name, 'data-key': `${type.node} ${type.name}` })),
        h('h2', null, 'Webhooks'),
        h('div', { class: 'filters', role: 'search' },
          field(ctx, 'Search', 'text', { search: true, placeholder: 'type, address, principal, state' })),
        h('p', { class: 'summary' }, `${count(hooks.length, 'webhook')}. `,
          failing ? alarm(`${count(failing, 'fails', 'fail')}.`) : 'None fails.'),
        hooks.length > 0 && table('Webhooks', [
          { head: 'address', wide: true, cell: (hook) => [code(hook.url),
            small(`${hook.principal ?? 'unknown'} · ${hook.id}`)] },
          { head: 'state', wide: true, cell: (hook) => hook.failures
            ? [badge('bad', hook.state), h('div', { class: 'small wrong' },
              `${count(hook.failures, 'failure')} in a row${hook.lastError ? `: ${hook.lastError}` : ''}`)]
            : badge(hook.state === 'active' ? 'ok' : 'wait', hook.state) },
          { head: 'type', cell: (hook) => code(hook.type) },
          { head: 'node', cell: (hook) => hook.node },
          { head: 'waiting', num: true, cell: (hook) => number(hook.waiting) },
        ], hooks, (hook) => ({
          'data-webhook': hook.id, 'data-failing': String(hook.failures > 0),
          'data-key': `${hook.node} ${hook.id}`,
          class: hook.failures ? 'bad-row' : '',
        })),
      ],
    ];
  },
};

// --- Tasks ----------------------------------------------------------------------------------

const STATUS = { working: 'ok', input_required: 'wait', completed: 'off', failed: 'bad', cancelled: 'off' };

export const tasks = {
  title: 'Tasks',
  every: 2,
  load: ({ scope }) => get('tasks', { node: scope }),
  render(ctx) {
    const present = ctx.answers.filter(({ answer }) => !answer.absent);
    const all = present.flatMap(({ node, answer }) => answer.tasks.map((task) => ({ ...task, node })));
    const more = present.reduce((n, { answer }) => n + answer.more, 0);
    const { text, status } = ctx.params;
    const found = all.filter((task) => (!status || task.status === status) &&
      has(text, task.id, task.target, task.method, task.principal, task.message));
    return [
      absent(ctx, 'tasks extension'),
      present.length > 0 && [
        h('div', { class: 'filters', role: 'search' },
          field(ctx, 'Search', 'text', { search: true, placeholder: 'id, target, principal, message' }),
          field(ctx, 'Status', 'status', {
            choices: [['', 'all'], ...Object.keys(STATUS).map((name) => [name, words(name)])],
          })),
        h('p', { class: 'summary' }, `${num(found.length)} of ${count(all.length, 'task')}`,
          more ? `, and ${num(more)} more that are not listed` : '', '.'),
        found.length === 0 ? nothing('No task matches.') : table('Tasks', [
          { head: 'task', wide: true, cell: (task) => [code(task.target ?? task.method),
            h('div', { class: 'small id' }, task.id)] },
          { head: 'status', cell: (task) => badge(STATUS[task.status] ?? 'wait', words(task.status)) },
          { head: 'age', num: true, cell: (task) => duration(task.ageMs) },
          { head: 'node', cell: (task) => task.node },
          { head: 'principal', cell: (task) => task.principal ?? '–' },
          { head: 'message', wide: true, cell: (task) => task.message ?? '–' },
        ], found, (task) => ({
          'data-task': task.id, 'data-key': task.id, 'data-status': task.status,
          class: task.status === 'failed' ? 'bad-row' : '',
        })),
      ],
    ];
  },
};

// --- Log ------------------------------------------------------------------------------------

const KEPT = 2000;
const LEVELS = { info: ['off', 0], warn: ['warn', 1], error: ['bad', 2] };

/** Entries of all nodes, the newest first, and the last number of each node. */
let entries = [];
const lastOf = new Map();
/** While paused: how the log looked then. */
let paused = null;

function take({ node, answer }) {
  if (!answer) return;
  // A node that was started again counts from one.
  if (answer.last < (lastOf.get(node) ?? 0)) {
    lastOf.delete(node);
    return;
  }
  const fresh = answer.entries.map((entry) => ({ ...entry, node }));
  if (answer.missed) {
    fresh.unshift({
      node, n: `missed before ${answer.last}`, at: fresh[0]?.at ?? Date.now(), level: 'warn', event: 'missed',
      text: `${count(answer.missed, 'entry was', 'entries were')} gone before this page asked for them`,
    });
  }
  lastOf.set(node, answer.last);
  if (fresh.length) entries = [...fresh.reverse(), ...entries].sort((a, b) => b.at - a.at).slice(0, KEPT);
}

export const log = {
  title: 'Log',
  every: 1,
  // Each node numbers its own entries, so each is asked for what is new there.
  async load({ scope, names }) {
    const asked = scope ? [scope] : names;
    const answers = await Promise.all(asked.length === 0 ? [get('log', { limit: 200 })]
      : asked.map((node) => get('log', { node, after: lastOf.get(node), limit: 200 })));
    const nodes = answers.flatMap((answer) => answer.nodes);
    nodes.forEach(take);
    return { ...answers[0], nodes };
  },
  render(ctx) {
    const { text, level = 'info', session } = ctx.params;
    const from = LEVELS[level]?.[1] ?? 0;
    const found = (paused ?? entries).filter((entry) => (!ctx.scope || entry.node === ctx.scope) &&
      (LEVELS[entry.level]?.[1] ?? 0) >= from &&
      has(text, entry.text, entry.event) && has(session, entry.session));
    const later = paused ? entries.filter((entry) => !paused.includes(entry)).length : 0;
    return [
      h('div', { class: 'filters', role: 'search' },
        field(ctx, 'Search', 'text', { search: true, placeholder: 'event, text' }),
        field(ctx, 'Session', 'session', { placeholder: 'part of an id' }),
        field(ctx, 'Level', 'level', {
          first: 'info', choices: [['info', 'all'], ['warn', 'warnings and errors'], ['error', 'errors']],
        }),
        h('button', {
          type: 'button', 'data-action': 'pause', 'aria-pressed': String(Boolean(paused)),
          onclick: () => {
            paused = paused ? null : [...entries];
            ctx.draw();
          },
        }, paused ? 'Go on' : 'Pause')),
      h('p', { class: 'summary' }, paused
        ? `▮▮ Paused; ${count(later, 'newer entry waits', 'newer entries wait')}.`
        : `${count(found.length, 'entry', 'entries')}, the newest first.`),
      found.length === 0 ? nothing('Nothing to show yet.') : table('Log', [
        { head: 'time', cell: (entry) => clock(entry.at) },
        { head: 'level', cell: (entry) => badge(LEVELS[entry.level]?.[0] ?? 'off', entry.level) },
        { head: 'node', cell: (entry) => entry.node },
        { head: 'event', class: 'row', cell: (entry) => h('b', { class: 'line' }, entry.event) },
        { head: 'text', wide: true, cell: (entry) => entry.text },
        { head: 'session', wide: true, cell: (entry) => [sessionLink(ctx, entry.node, entry.session),
          entry.call == null ? '' : small(`call ${entry.call}`)] },
      ], found.slice(0, 300), (entry) => ({
        'data-key': `${entry.node} ${entry.n} ${entry.at}`, 'data-level': entry.level,
        class: entry.level === 'error' ? 'bad-row' : '',
      })),
      found.length > 300 &&
        nothing(`${num(found.length - 300)} older entries match too: filter to see them.`),
    ];
  },
};
