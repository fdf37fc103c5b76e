// The sessions, and the page of one: who it is, and what became of each notice for it.

import {
  act, actButton, alarm, badge, bar, bytes, clock, code, count, duration, field, get, h, has, lost,
  nothing, num, number, small, table, tag, words,
} from './lib.js';
import { framesTable } from './overview.js';

const PAGE = 50;
/** Notices that are listed at first. */
const SHOWN = 40;

const clientName = ({ client }) => client ? `${client.name} ${client.version}` : 'unnamed client';

/** Whether the client keeps up, and if not, why, in words. */
function pace(session) {
  if (session.slow) return [badge('bad', 'slow'), h('div', { class: 'small wrong' }, session.why ?? '')];
  if (!session.initialized) return badge('wait', 'not initialized');
  return session.attached ? badge('ok', 'keeps up') : badge('off', 'not connected');
}

/** Each node gives its own page: they are put together, slow sessions first where that is asked. */
function merged(answers, order) {
  const all = answers.flatMap(({ node, answer, error }) =>
    answer.sessions.map((session) => ({ ...session, node, stale: Boolean(error) })));
  const by = {
    slow: (a, b) => b.slow - a.slow || b.unread - a.unread || b.heldBytes - a.heldBytes,
    newest: (a, b) => a.ageMs - b.ageMs,
    oldest: (a, b) => b.ageMs - a.ageMs,
    id: (a, b) => (a.id < b.id ? -1 : 1),
  };
  return all.sort(by[order] ?? by.slow);
}

const lockOut = (ctx, node, principal) => actButton(ctx, {
  label: `Lock out ${principal}`, title: `Lock out ${principal}?`, node,
  body: { action: 'revoke', principal },
  seconds: [[60, '1 minute'], [600, '10 minutes'], [3600, '1 hour'], [86400, '1 day']],
  text: [`All sessions and listens of ${principal} end, on all nodes, and its credentials are ` +
    'refused for this time.', 'Calls that run go on, and nobody else can read their results.'],
});

export const sessions = {
  title: 'Sessions',
  every: 2,
  load: ({ params, scope }) => get('sessions', {
    text: params.text, principal: params.principal, kind: params.kind, order: params.order ?? 'slow',
    limit: PAGE, offset: params.offset, node: scope,
  }),

  render(ctx) {
    const rows = merged(ctx.answers, ctx.params.order);
    const total = ctx.answers.reduce((all, { answer }) => all + answer.total, 0);
    const found = ctx.answers.reduce((all, { answer }) => all + answer.found, 0);
    const longest = Math.max(0, ...ctx.answers.map(({ answer }) => answer.found));
    const offset = Number(ctx.params.offset ?? 0);
    const slow = rows.filter((row) => row.slow).length;
    const several = ctx.answers.length > 1;
    const turn = (label, to, possible) => h('button', {
      type: 'button', disabled: !possible, onclick: () => ctx.set({ offset: to || '' }),
      'data-page': label.toLowerCase(),
    }, label);
    return [
      h('div', { class: 'filters', role: 'search' },
        field(ctx, 'Search', 'text', { search: true, placeholder: 'beginning of an id, client, principal' }),
        field(ctx, 'Principal', 'principal', { placeholder: 'exactly' }),
        field(ctx, 'Kind', 'kind', {
          choices: [['', 'all'], ['http', 'http'], ['listen', 'listen'], ['pipe', 'pipe']],
        }),
        field(ctx, 'Order', 'order', { first: 'slow', choices: [['slow', 'slow first'],
          ['newest', 'newest first'], ['oldest', 'oldest first'], ['id', 'by id']] }),
        ctx.params.principal && ctx.answers[0] && lockOut(ctx, ctx.answers[0].node, ctx.params.principal)),
      h('p', { class: 'summary' }, `${num(found)} of ${count(total, 'session')}. `,
        slow ? alarm(`${num(slow)} slow on this page.`) : 'None on this page is slow.'),
      rows.length === 0 ? nothing('No session matches.') : table('Sessions', [
        { head: 'session', wide: true, cell: (s) => [
          h('a', { class: 'id', href: ctx.href(`session/${s.node}/${s.id}`) }, s.id),
          small(clientName(s), s.principal ? ` · ${s.principal}` : '')] },
        { head: 'keeps up?', wide: true, cell: pace },
        { head: 'node', cell: (s) => s.node },
        { head: 'kind', cell: (s) => h('span', { class: 'line' }, tag(s.kind), ' ', tag(s.era)) },
        { head: 'age', num: true, cell: (s) => duration(s.ageMs) },
        { head: 'unread', num: true, cell: (s) => number(s.unread, s.slow) },
        { head: 'held', num: true, cell: (s) => s.heldBytes ? bytes(s.heldBytes) : number(0) },
        { head: 'lost', num: true, cell: (s) => number(lost(s.frames), true) },
        { head: 'calls', num: true, cell: (s) => number(s.openCalls) },
        { head: 'subscribes', num: true, cell: (s) => number(s.subscriptions) },
        { head: 'restarts', num: true, cell: (s) => number(s.recentRestarts, true) },
      ], rows, (s) => ({
        'data-session': s.id, 'data-key': s.id, 'data-slow': String(s.slow),
        class: `link${s.slow ? ' bad-row' : ''}${s.stale ? ' stale' : ''}`,
        onclick: (event) => {
          if (!event.target.closest('a') && getSelection().isCollapsed) {
            location.hash = ctx.href(`session/${s.node}/${s.id}`);
          }
        },
      })),
      longest > PAGE && h('p', { class: 'pager' },
        turn('Previous', Math.max(0, offset - PAGE), offset > 0),
        h('span', null, `Page ${offset / PAGE + 1} of ${Math.ceil(longest / PAGE)}`,
          several ? `, with up to ${PAGE} of each node` : ''),
        turn('Next', offset + PAGE, offset + PAGE < longest)),
    ];
  },
};

// --- One session ----------------------------------------------------------------------------

// What can become of a notice: the sign, what it means, and whether the client missed something.
// In the order in which they answer the question why a client did not hear of something.
const OUTCOMES = {
  dropped: ['bad', 'removed to make room, as the client reads too slowly'],
  closed: ['bad', 'its stream was closed before the client read it'],
  waits: ['wait', 'the client has not read it yet'],
  filtered: ['off', 'not for this client: it did not ask for it, or may not see it'],
  coalesced: ['off', 'the same notice was still unread, and tells of both'],
  conflated: ['off', 'a newer value took its place'],
  refused: ['off', 'progress that did not increase, which nobody is sent'],
  delivered: ['ok', 'handed to the client’s connection'],
};
const outcome = (name) => OUTCOMES[name] ?? ['wait', ''];

const matching = (entries, what) =>
  entries.filter((entry) => has(what, entry.what, entry.class, words(entry.class)));

/** Answers "why did this client not hear of `what`?", in a sentence. */
function verdict(followed, found, what) {
  const { entries, on, missed } = followed;
  if (!on && entries.length === 0) {
    return 'Nobody follows this session, so it is not known what became of single notices. Follow it, ' +
      'and each notice from then on is listed here, with what became of it and why.';
  }
  const about = what ? ` that match “${what}”` : '';
  if (found.length === 0) {
    return `There were no notices${about} for this client while it was followed. ` +
      (what ? 'Either nothing happened that they tell of, or it was not announced to this client.' : '') +
      (missed ? ` ${count(missed, 'older notice was', 'older notices were')} not kept.` : '');
  }
  const of = (...names) => found.filter((entry) => names.includes(entry.became)).length;
  const all = `${count(found.length, 'notice')}${about}`;
  const parts = [];
  const gone = of('dropped', 'closed');
  const waits = of('waits');
  const filtered = of('filtered');
  const heard = of('delivered');
  const joined = of('coalesced', 'conflated');
  if (gone) parts.push(`The client missed ${num(gone)} of ${all}.`);
  else if (filtered === found.length) parts.push(`None of ${all} was for this client.`);
  else parts.push(`Nothing was lost of ${all}.`);
  if (of('refused')) parts.push(`${num(of('refused'))} were refused: progress that did not increase.`);
  if (heard) parts.push(`${num(heard)} went out.`);
  if (joined) parts.push(`${count(joined, 'is', 'are')} told by another notice, which came instead.`);
  if (waits) parts.push(`${count(waits, 'still waits', 'still wait')}: the client has not read so far.`);
  if (filtered && filtered < found.length) parts.push(`${count(filtered, 'was', 'were')} not for it.`);
  if (missed) parts.push(`${count(missed, 'older notice was', 'older notices were')} not kept.`);
  return parts.join(' ');
}

/** The outcomes with their reasons. Each one is a filter. */
function outcomes(ctx, found) {
  const names = [...new Set([...Object.keys(OUTCOMES), ...found.map((entry) => entry.became)])]
    .filter((name) => found.some((entry) => entry.became === name));
  const chosen = ctx.params.became ?? '';
  return h('ul', { class: 'outcomes' }, names.map((name) => {
    const those = found.filter((entry) => entry.became === name);
    const reasons = [...new Set(those.map((entry) => entry.why).filter(Boolean))];
    const [kind, meaning] = outcome(name);
    return h('li', { 'data-key': `outcome-${name}` },
      h('button', {
        type: 'button', class: 'chip', 'aria-pressed': String(chosen === name), 'data-filter': name,
        onclick: () => ctx.set({ became: chosen === name ? '' : name }),
      }, badge(kind, `${num(those.length)} ${name}`)),
      h('span', { class: 'small' }, reasons.length ? reasons.join('; ') : meaning));
  }));
}

function notices(ctx, session, followed) {
  const what = ctx.params.what ?? '';
  const found = matching(followed.entries, what);
  const shown = found.filter((entry) => !ctx.params.became || entry.became === ctx.params.became);
  const follow = (action, label) => ctx.mayAct && h('button', {
    type: 'button', 'data-action': action, class: action === 'follow' ? 'main' : '',
    onclick: () => act(ctx, { node: ctx.rest[0], action, session: session.id }),
  }, label);
  const until = followed.until ? ` until ${clock(followed.until)}` : '';
  return h('section', { class: 'panel', id: 'notices' },
    h('header', null,
      h('h2', null, 'Notices'),
      h('p', { class: 'small' }, followed.on
        ? `Followed${until}; the last ${num(followed.capacity)} are kept.`
        : ctx.mayAct ? 'Not followed.' : 'Not followed. You may look, but not follow.'),
      followed.on ? follow('unfollow', 'Stop following') : follow('follow', 'Follow')),
    h('div', { class: 'filters' }, field(ctx, 'Why did this client not hear of …', 'what', {
      search: true, placeholder: 'tools/list_changed, progress, a resource …',
    })),
    h('p', { class: 'verdict', id: 'verdict' }, verdict(followed, found, what)),
    outcomes(ctx, found),
    shown.length > 0 && table('Notices, the newest first', [
      { head: 'time', cell: (entry) => clock(entry.at) },
      { head: 'notice', wide: true, class: 'long', cell: (entry) => [code(entry.what),
        small(words(entry.class), entry.seq == null ? '' : ` · frame ${num(entry.seq)}`)] },
      { head: 'what became of it', cell: (entry) => badge(outcome(entry.became)[0], entry.became) },
      { head: 'why', wide: true, cell: (entry) => entry.why ??
        h('span', { class: 'zero' }, entry.became === 'delivered' ? '–' : outcome(entry.became)[1]) },
    ], shown.toReversed().slice(0, ctx.params.all ? shown.length : SHOWN), (entry) => ({
      'data-outcome': entry.became, class: outcome(entry.became)[0] === 'bad' ? 'bad-row' : '',
    })),
    shown.length > SHOWN && !ctx.params.all && h('p', { class: 'pager' }, h('button', {
      type: 'button', onclick: () => ctx.set({ all: 'yes' }),
    }, `Show all ${num(shown.length)}`)));
}

function buttons(ctx, session) {
  const [node] = ctx.rest;
  return h('div', { class: 'buttons' },
    actButton(ctx, {
      label: 'Restart session', title: 'Restart this session?', node, quiet: true,
      body: { action: 'restartSession', session: session.id },
      text: ['The session gets a new actor. The client stays connected and keeps its subscriptions; ' +
        `${count(session.openCalls, 'open call is', 'open calls are')} answered with an error.`,
      'A session that is restarted more than five times within a minute is ended instead.'],
    }),
    actButton(ctx, {
      label: 'End session', title: 'End this session?', node,
      body: { action: 'endSession', session: session.id },
      text: [
        `${clientName(session)} is disconnected: its calls are answered with an error, its streams end.`,
        session.era === 'legacy' ? 'It has to initialize again, as a new session.'
          : 'It may open a new listen at once.',
      ],
    }),
    session.principal && lockOut(ctx, node, session.principal));
}

function progressBar({ progress, total, message }) {
  const said = message ? ` · ${message}` : '';
  return total ? bar(progress, total, `${num(progress)} of ${num(total)}${said}`)
    : h('p', { class: 'small' }, `progress ${num(progress)}${said}`);
}

const calls = (ctx, open) => h('ul', { class: 'calls' }, open.map((call) =>
  h('li', { 'data-call': call.call, 'data-key': `call-${call.call}` },
    h('p', null, h('b', { class: 'code' }, call.target ?? call.method), ` for ${duration(call.ageMs)}`),
    actButton(ctx, {
      label: 'Cancel', title: `Cancel call ${call.call}?`, node: ctx.rest[0], quiet: true,
      body: { action: 'cancelCall', call: call.call },
      text: [`The code of ${call.target ?? call.method} is stopped where it waits next. Its caller ` +
        'gets an error.', 'What it did so far is not undone.'],
    }),
    h('p', { class: 'small' }, `call ${call.call} · request ${call.request} · ${call.method}`),
    call.progress ? progressBar(call.progress) : h('p', { class: 'small' }, 'No progress was reported.'))));

export const session = {
  title: 'Session',
  section: 'sessions',
  every: 1,
  load: ({ rest: [node, id] }) => get('session', { id, node }),

  render(ctx) {
    const [node, id] = ctx.rest;
    const back = h('p', { class: 'small' }, h('a', { href: ctx.href('sessions') }, '← All sessions'));
    const found = ctx.answers.find(({ answer }) => answer);
    if (!found && ctx.failed.length) return [back, nothing(`Node ${node} could not be asked for it.`)];
    if (!found) {
      return [back, nothing(`There is no session ${id} on node ${node}: it has ended or moved. `,
        h('a', { href: ctx.href('sessions', { text: id, node: '' }) }, 'Look for it on all nodes'), '.')];
    }
    const { session: s, calls: open, followed } = found.answer;
    const fact = (name, ...value) => h('div', null, h('dt', null, name), h('dd', null, ...value));
    return [
      back,
      h('header', { class: 'session-head', 'data-session': s.id, 'data-slow': String(s.slow) },
        h('p', { class: 'id' }, s.id),
        h('p', null, badge(s.attached ? 'ok' : 'off', s.attached ? 'connected' : 'not connected'), ' ',
          tag(s.kind), ' ', tag(s.era), ' ', s.slow ? badge('bad', 'slow') : ''),
        buttons(ctx, s)),
      s.slow && h('p', { class: 'notice bad', id: 'why' },
        h('b', null, '✕ This client is slow: '), s.why ?? 'frames wait for it', '.'),
      h('dl', { class: 'facts' },
        fact('client', clientName(s)), fact('principal', s.principal ?? 'unknown'), fact('node', node),
        fact('protocol', s.version ?? '–'), fact('age', duration(s.ageMs)),
        fact('initialized', s.initialized ? 'yes' : 'no'), fact('streams', num(s.streams)),
        fact('subscriptions', num(s.subscriptions)), fact('unread frames', number(s.unread, s.slow)),
        fact('held', bytes(s.heldBytes)), fact('mailbox', num(s.mailbox)),
        fact('restarts lately', number(s.recentRestarts, true))),
      h('div', { class: 'aside', 'data-key': 'aside' },
        notices(ctx, s, followed),
        h('div', null,
          h('section', { class: 'panel' }, h('h2', null, 'Open calls'),
            open.length ? calls(ctx, open) : nothing('No call of this client runs.')),
          h('section', { class: 'panel' }, h('h2', null, 'Frames since its start'), framesTable(s.frames)))),
    ];
  },
};
