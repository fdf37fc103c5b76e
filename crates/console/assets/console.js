// The page: which view is shown, when what is asked, the nodes at the side, keys.

import { Refused, badge, clock, count, get, h, nothing, num, say, show, sum } from './lib.js';
import { STATES, overview, record } from './overview.js';
import { session, sessions } from './sessions.js';
import { actors, catalog, events, log, tasks } from './views.js';

const VIEWS = { overview, actors, sessions, session, catalog, events, tasks, log };
const SECTIONS = [['overview', 'o'], ['actors', 'a'], ['sessions', 's'], ['catalog', 'c'], ['events', 'e'],
  ['tasks', 't'], ['log', 'l']];
/** For how long the last answer of a node is shown when it does not answer. */
const KEEP = 60_000;

const state = {
  me: null,
  nodes: [], // the last answers of `overview`, with what is kept of nodes that did not answer
  view: null, // the last answer for the view, likewise
  filters: null, // what that was an answer to
  refused: null, // why the server said no, for the view
  down: null, // why the server does not answer, and since when
  answered: null, // when it answered last, by the clock here
  now: Date.now(), // the clock of the server
};
/** Nodes that could not be asked: `{ error, since, at, well }`, from `since` to `at`. */
const trouble = new Map();

// --- Routes: #/VIEW/MORE?filter=… -------------------------------------------------------------

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // Somebody typed it.
  }
}

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  let [name, ...rest] = path.split('/').map(decoded);
  if (!Object.hasOwn(VIEWS, name)) name = 'overview';
  if (name === 'session' && rest.length < 2) name = 'sessions';
  return { name, rest, params: Object.fromEntries(new URLSearchParams(query)) };
}

function href(path, params = {}) {
  const all = { node: route().params.node, ...params };
  const query = new URLSearchParams(Object.entries(all).filter(([, value]) => value)).toString();
  return `#/${path.split('/').map(encodeURIComponent).join('/')}${query ? `?${query}` : ''}`;
}

/** What a view gets: its filters, the answers, and what it may do. */
function context() {
  const { name, rest, params } = route();
  return {
    params, rest, href, draw, refresh: pollView,
    scope: params.node ?? '',
    mayAct: state.me?.mayAct ?? false,
    now: state.now,
    all: state.nodes,
    names: state.nodes.map(({ node }) => node),
    answers: (state.view ?? []).filter(({ answer }) => answer),
    failed: (state.view ?? []).filter(({ error }) => error),
    set(change) {
      const path = [name, ...rest].join('/');
      history.replaceState(null, '', href(path, { ...params, ...change }));
      draw();
      pollView();
    },
  };
}

// --- Asking -----------------------------------------------------------------------------------

/** Puts what a node said last in the place of an answer that it owes. */
function keep(envelope, before) {
  return envelope.nodes.map(({ node, answer, error }) => {
    if (error === undefined) return { node, answer, at: envelope.at };
    const old = before?.find((each) => each.node === node);
    if (!old?.answer || envelope.at - old.at > KEEP) return { node, error };
    return { ...old, error, stale: old.at };
  });
}

/** Remembers who did not answer, until some seconds after they do again. */
function note(nodes) {
  const now = Date.now();
  for (const { node, error } of nodes) {
    const known = trouble.get(node);
    if (error !== undefined) {
      trouble.set(node, { error, at: now, since: known && !known.well ? known.since : now });
    } else if (known && now - known.at > 10_000) {
      trouble.delete(node);
    } else if (known) {
      known.well = true;
    }
  }
}

async function ask(what) {
  try {
    const answer = await what();
    if (state.down) pollMe();
    state.down = null;
    state.answered = Date.now();
    if (answer.at) state.now = answer.at;
    return answer;
  } catch (error) {
    if (error instanceof Refused) {
      state.down = null;
      return { refused: error.message };
    }
    const why = { TypeError: 'no connection', TimeoutError: 'not within 8 s' }[error.name] ?? error.message;
    state.down ??= { since: state.answered ?? Date.now(), why };
    return null;
  }
}

let asking = false;
async function pollOverview() {
  if (asking) return;
  asking = true;
  const answer = await ask(() => get('overview'));
  asking = false;
  if (answer?.nodes) {
    state.nodes = keep(answer, state.nodes);
    note(state.nodes);
    for (const node of trouble.keys()) {
      if (!state.nodes.some((each) => each.node === node)) trouble.delete(node);
    }
    record(answer);
  }
  if (answer && !VIEWS[route().name].load) state.refused = answer.refused ?? null;
  draw();
}

// A newer question makes the answer to an older one worthless.
let question = 0;
let asked = 0;
let pending = false;
async function pollView() {
  const { name } = route();
  const mine = question += 1;
  pending = false;
  if (!VIEWS[name].load) return;
  asked = Date.now();
  pending = true;
  const answer = await ask(() => VIEWS[name].load(context()));
  if (mine !== question) return;
  pending = false;
  if (answer) state.refused = answer.refused ?? null;
  if (answer?.nodes) {
    const filters = location.hash;
    state.view = keep(answer, filters === state.filters ? state.view : null);
    state.filters = filters;
    note(state.view);
  }
  draw();
}

let askedMe = 0;
async function pollMe() {
  askedMe = Date.now();
  const answer = await ask(() => get('me'));
  if (answer && !answer.refused) state.me = answer;
  draw();
}

function tick() {
  pollOverview();
  const { every } = VIEWS[route().name];
  if (!pending && Date.now() - asked >= every * 1000 - 100) pollView();
  if (Date.now() - askedMe > (state.me ? 60_000 : 2000)) pollMe();
}

// Nothing is asked while nobody looks.
let timer = null;
function wake() {
  clearInterval(timer);
  timer = null;
  if (document.hidden) return;
  timer = setInterval(tick, 1000);
  tick();
}

// --- Drawing ----------------------------------------------------------------------------------

let drawing = false;
/** Draws once before the next frame, however often it is called. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    // The address has changed, and the event that says so is still to come: these are old answers.
    if (JSON.stringify([route().name, route().rest]) !== place) return;
    const ctx = context();
    drawSide(ctx);
    drawAlerts(ctx);
    drawMain(ctx);
  });
}

function drawMain(ctx) {
  const { name } = route();
  const view = VIEWS[name];
  const main = document.getElementById('main');
  const arrived = main.dataset.view !== name;
  main.dataset.view = name;
  main.classList.toggle('down', Boolean(state.down));
  document.title = `${view.title} – ${state.me?.server.name ?? 'Stentor'}`;
  const ready = view.load ? state.view : state.nodes.length;
  show(main,
    h('h1', { id: 'title', tabindex: -1 }, view.title,
      ctx.scope ? h('span', { class: 'small' }, ` of node ${ctx.scope}`) : ''),
    state.refused
      ? h('p', { class: 'notice bad', role: 'alert', 'data-key': 'refused' }, '✕ ', state.refused)
      : ready ? h('div', { class: 'view', 'data-key': name }, view.render(ctx))
        : nothing(state.down ? 'This was not asked before, so there is nothing to show.' : 'Asking …'));
  // On a narrow screen the views are a row that scrolls.
  if (arrived) {
    document.querySelector('nav [aria-current]').scrollIntoView({ block: 'nearest', inline: 'center' });
  }
}

function drawAlerts() {
  const { down } = state;
  const shown = (VIEWS[route().name].load ? state.view : state.nodes) ?? [];
  const stale = (node) => shown.find((each) => each.node === node)?.stale;
  show(document.getElementById('alerts'),
    // The time stands still, so that a screen reader says this once.
    down && h('p', { class: 'banner', id: 'down', role: 'alert', 'data-key': 'down' },
      h('b', null, '✕ The server does not answer'), ` since ${clock(down.since)} (${down.why}). `,
      'What you see is from then. This page asks again each second.'),
    [...trouble].map(([node, { error, at, since, well }]) => well
      ? h('p', { class: 'notice', 'data-key': `trouble-${node}`, 'data-recovered': node },
        `● Node ${node} answers again. At ${clock(at)} it could not be asked: ${error}.`)
      : h('p', { class: 'notice bad', 'data-key': `trouble-${node}`, 'data-unasked': node },
        h('b', null, `✕ Node ${node} could not be asked`), ` since ${clock(since)}: ${error}. `,
        stale(node) ? `What is shown of it is from ${clock(stale(node))}.` : 'Nothing is shown of it.')));
}

function drawSide(ctx) {
  const { name } = route();
  const section = VIEWS[name].section ?? name;
  const total = (of) => ctx.all.reduce((all, { answer }) => all + (answer ? of(answer) : 0), 0);
  const counts = { sessions: total((a) => sum(a.sessions)), tasks: total((a) => a.tasks) };
  const restarts = total((a) => a.recentRestarts);
  const failed = ctx.all.filter(({ error }) => error).length;
  const choose = (node, label, ...about) => h('button', {
    type: 'button', class: 'node', 'aria-pressed': String(ctx.scope === node), 'data-choose': node || 'all',
    'data-key': `node-${node}`,
    onclick: () => location.replace(href([name, ...ctx.rest].join('/'), { ...ctx.params, node, offset: '' })),
  }, h('span', null, label), h('span', { class: 'about' }, ...about));
  const { me } = state;
  show(document.getElementById('side'),
    h('div', { class: 'brand' }, h('b', null, 'Stentor'),
      h('span', { class: 'small' }, me ? `${me.server.name} ${me.server.version}` : '…')),
    h('nav', { 'aria-label': 'Views' }, h('ul', null, SECTIONS.map(([to]) =>
      h('li', null, h('a', {
        href: href(to === 'overview' ? '' : to), 'aria-current': section === to && 'page', 'data-nav': to,
      }, h('span', null, VIEWS[to].title),
      counts[to] ? h('span', { class: 'count' }, num(counts[to])) : '',
      to === 'actors' && restarts
        ? h('span', { class: 'count wrong' }, `▲ ${count(restarts, 'restart')}`) : ''))))),
    h('section', { class: 'nodes', 'aria-label': 'Nodes' },
      choose('', 'All nodes', failed ? badge('bad', `${num(failed)} not asked`)
        : h('span', { class: 'small' }, count(ctx.all.length, 'node'))),
      ctx.all.map(({ node, answer, error }) => choose(node, node,
        state.down ? badge('off', 'not known') : error ? badge('bad', 'not asked', { title: error })
          : badge(STATES[answer.state] ?? 'wait', answer.state)))),
    h('footer', null,
      h('span', { class: 'small', id: 'me' },
        me ? `${me.name ?? 'somebody'} · may ${me.mayAct ? 'act' : 'only look'}` : ''),
      h('button', { type: 'button', 'data-open': 'keys', onclick: openKeys, 'aria-label': 'Keys' }, '?')));
}

// --- Keys -------------------------------------------------------------------------------------

function openKeys() {
  const key = (...names) => names.map((name) => [h('kbd', null, name), ' ']);
  show(document.getElementById('keys-body'), h('dl', { class: 'keys' },
    [[key('/'), 'search'], ...SECTIONS.map(([name, letter]) => [key('g', letter), VIEWS[name].title]),
      [key('←', '→'), 'read a plot that has the focus'], [key('?'), 'this list'], [key('Esc'), 'close']]
      .map(([keys, what]) => h('div', null, h('dt', null, keys), h('dd', null, what)))));
  document.getElementById('keys').showModal();
}

function search() {
  const find = () => document.querySelector('#main [data-search]');
  if (find()) return find().focus();
  // Most searches are for a session.
  location.hash = href('sessions');
  const wait = new MutationObserver(() => {
    if (!find()) return;
    wait.disconnect();
    find().focus();
  });
  wait.observe(document.getElementById('main'), { childList: true, subtree: true });
  setTimeout(() => wait.disconnect(), 5000);
}

let going = 0;
document.addEventListener('keydown', (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (target.matches('input, select, textarea')) {
    if (key === 'Escape') target.blur();
    return;
  }
  const to = Date.now() - going < 1500 && SECTIONS.find(([, letter]) => letter === key);
  going = key === 'g' ? Date.now() : 0;
  if (to) location.hash = href(to[0] === 'overview' ? '' : to[0]);
  else if (key === '/') search();
  else if (key === '?') openKeys();
  else return;
  event.preventDefault();
});

// --- Start ------------------------------------------------------------------------------------

let place = JSON.stringify([route().name, route().rest]);
window.addEventListener('hashchange', () => {
  const now = JSON.stringify([route().name, route().rest]);
  // Another node or filter of the same view: what is there stays until the answer comes.
  if (now !== place) {
    place = now;
    state.view = null;
    state.refused = null;
    say('');
    window.scrollTo(0, 0);
    // A reader who hears the page is told where it went.
    document.getElementById('title')?.focus({ preventScroll: true });
  }
  draw();
  pollView();
});
document.addEventListener('visibilitychange', wake);
for (const button of document.querySelectorAll('[data-cancel]')) {
  button.addEventListener('click', () => button.closest('dialog').close());
}
document.getElementById('skip').addEventListener('click', (event) => {
  // The hash is the route, so the jump is made by hand.
  event.preventDefault();
  document.getElementById('main').focus();
});
wake();
