// What all views use: building and patching the page, asking the server, words and numbers.

// --- Building -------------------------------------------------------------------------------

const builder = (create) => (tag, props, ...children) => {
  const node = create(tag);
  // An absent child leaves an empty text, so that its siblings keep their places in `patch`.
  node.append(...children.flat(Infinity).map((child) => child === false ? '' : child ?? ''));
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value == null || value === false) continue;
    if (HANDLERS.includes(name) || name === 'value') node[name] = value;
    // The policy of the page forbids the attribute `style`, and allows this.
    else if (name === 'style') Object.entries(value).forEach((each) => node.style.setProperty(...each));
    else node.setAttribute(name, value === true ? '' : value);
  }
  return node;
};

const HANDLERS = ['onclick', 'oninput', 'onchange', 'onkeydown', 'onpointermove', 'onpointerleave',
  'onblur'];

/** An HTML element. Text is always text: nothing that a server says becomes markup. */
export const h = builder((tag) => document.createElement(tag));
/** An SVG element. */
export const svg = builder((tag) => document.createElementNS('http://www.w3.org/2000/svg', tag));

const keyOf = (node) => node.id || node.dataset?.key;

/**
 * Makes `parent` look like `fresh`, and keeps the elements that are there: so focus, selection and
 * scrolling survive a poll. Elements are known by `id` or `data-key`, others by their place.
 */
export function show(parent, ...fresh) {
  const focused = document.activeElement;
  patchChildren(parent, [...h('div', null, ...fresh).childNodes]);
  // A row that moved took the focus with it and lost it on the way.
  if (focused?.isConnected && focused !== document.activeElement) {
    focused.focus({ preventScroll: true });
  }
}

function patchChildren(parent, fresh) {
  const wanted = new Set(fresh.map(keyOf).filter(Boolean));
  const keyed = new Map([...parent.childNodes].map((node) => [keyOf(node), node]));
  let at = parent.firstChild;
  for (const next of fresh) {
    while (at && keyOf(at) && !wanted.has(keyOf(at))) at = removed(at);
    const key = keyOf(next);
    const old = key ? keyed.get(key) : at && !keyOf(at) ? at : null;
    if (old && old.nodeName === next.nodeName) {
      if (old === at) at = at.nextSibling;
      else parent.insertBefore(old, at);
      if (key) keyed.delete(key);
      patch(old, next);
    } else if (old && old === at) {
      at = at.nextSibling;
      old.replaceWith(next);
    } else {
      parent.insertBefore(next, at);
    }
  }
  while (at) at = removed(at);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function patch(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whether a <details> is open is the reader's business.
    if (!fresh.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name === 'style') old.style.cssText = fresh.style.cssText;
    else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (old[name] !== fresh[name]) old[name] = fresh[name];
  patchChildren(old, [...fresh.childNodes]);
  // What somebody is typing stays as it is.
  if ('value' in old && old !== document.activeElement && old.value !== fresh.value) {
    old.value = fresh.value;
  }
}

// --- Asking ---------------------------------------------------------------------------------

/** The server answered, and the answer is no. Any other error means that it did not answer. */
export class Refused extends Error {}

async function read(response) {
  const body = await response.json().catch(() => null);
  if (body && 'version' in body && body.version !== 1) {
    throw new Refused('The server was updated: reload this page.');
  }
  if (response.ok && body) return body;
  if (response.status < 500 && body?.error) throw new Refused(body.error);
  throw new Error(body?.error ?? `status ${response.status}`);
}

export async function get(name, params = {}) {
  const set = Object.entries(params).filter(([, value]) => value != null && value !== '');
  const url = new URL(`api/v1/${name}?${new URLSearchParams(set)}`, import.meta.url);
  return read(await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(8000) }));
}

export async function post(body) {
  return read(await fetch(new URL('api/v1/actions', import.meta.url), {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'X-Stentor-Console': '1' },
    body: JSON.stringify(body),
  }));
}

// --- Words and numbers ----------------------------------------------------------------------

const grouped = new Intl.NumberFormat('en');
export const num = (n) => n == null ? '–' : grouped.format(n);

export function rate(n) {
  if (!n) return '0';
  return n < 0.05 ? '<0.1' : n < 100 ? n.toFixed(1) : num(Math.round(n));
}

export function bytes(n) {
  if (n == null) return '–';
  let unit = 0;
  for (; n >= 1024 && unit < 4; unit += 1) n /= 1024;
  return `${+n.toFixed(unit && n < 100 ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

export function duration(ms) {
  if (ms == null) return '–';
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 1) return `${Math.max(0, Math.round(ms))} ms`;
  if (s < 60) return `${s} s`;
  if (s < 600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

export const clock = (at) => new Date(at).toTimeString().slice(0, 8);
export const words = (name) => String(name).replaceAll('_', ' ');
export const count = (n, one, many = `${one}s`) => `${num(n)} ${n === 1 ? one : many}`;
export const sum = (counts) => Object.values(counts ?? {}).reduce((all, n) => all + n, 0);
export const has = (text, ...fields) =>
  !text || fields.some((field) => field?.toLowerCase().includes(text.toLowerCase()));

/** Frames that nobody will read: the others were delivered, wait, or are told by another one. */
export const lost = (frames) => sum(frames.dropped) + frames.closed;

// The order in which classes are stacked and listed, with those that a newer server adds at the end.
const CLASSES = ['reply', 'request', 'question', 'list_changed', 'resource_updated', 'task', 'event',
  'custom', 'log', 'progress'];
export const classesOf = (...counts) =>
  [...new Set([...CLASSES, ...counts.flatMap((each) => Object.keys(each))])]
    .filter((name) => counts.some((each) => each[name]));

// --- Parts ----------------------------------------------------------------------------------

const ICONS = { ok: '●', wait: '◐', off: '○', bad: '✕', warn: '▲' };

/** A state in a word, with a sign: never by colour alone. */
export const badge = (kind, text, props) =>
  h('span', { class: `badge ${kind}`, ...props },
    h('span', { 'aria-hidden': 'true' }, ICONS[kind]), ' ', text);

export const tag = (text, kind = '') => h('span', { class: `tag ${kind}` }, text);
export const tags = (names) => names.map((name) => [tag(name), ' ']);
export const code = (...text) => h('span', { class: 'code' }, ...text);
export const small = (...text) => h('div', { class: 'small' }, ...text);
export const alarm = (text) => h('span', { class: 'wrong' }, `▲ ${text}`);
export const number = (n, wrong) => h('span', { class: wrong && n ? 'wrong' : n ? '' : 'zero' }, num(n));

/** How much of something is used; red where little is left. */
export function bar(part, whole, text, name) {
  const used = whole > 0 ? Math.min(1, part / whole) : 0;
  return h('div', { class: `bar${name && used > 0.9 ? ' full' : ''}` },
    h('div', {
      class: 'track', role: name ? 'meter' : 'progressbar', 'aria-label': name ?? 'progress',
      'aria-valuenow': Math.round(used * 100), 'aria-valuemin': 0, 'aria-valuemax': 100,
    }, h('div', { class: 'fill', style: { width: `${used * 100}%` } })),
    h('span', { class: 'small' }, text));
}

/**
 * A table. Columns are `{ head, cell, num, wide }`; the first one heads its row. On a narrow screen
 * each row is a card, in which the cells name their columns, or the table scrolls (`stays`).
 */
export function table(caption, columns, rows, props = () => ({}), narrow = 'cards-narrow') {
  const cell = (column, row, first) =>
    h(first ? 'th' : 'td', {
      scope: first && 'row', 'data-label': column.head,
      class: `${column.num ? 'num' : ''} ${column.wide ? 'wide' : ''} ${column.class ?? ''}`.trim(),
    }, h('div', null, column.cell(row)));
  return h('div', { class: `scroll ${narrow}`, 'data-key': caption },
    h('table', null,
      h('caption', { class: 'hidden' }, caption),
      h('thead', null, h('tr', null, columns.map((column) =>
        h('th', { scope: 'col', class: column.num ? 'num' : '' }, column.head)))),
      h('tbody', null, rows.map((row) =>
        h('tr', props(row), columns.map((column, i) => cell(column, row, i === 0)))))));
}

export const nothing = (...text) => h('p', { class: 'nothing' }, ...text);

/** A labelled field of a filter. What is typed goes into the address, after a moment. */
export function field(ctx, label, name, { search, choices, placeholder, first } = {}) {
  const value = ctx.params[name] ?? first ?? '';
  const set = (text) => ctx.set({ [name]: text === first ? '' : text, offset: '' });
  const control = choices
    ? h('select', { value, name, onchange: (e) => set(e.target.value) },
      choices.map(([key, text]) => h('option', { value: key }, text)))
    : h('input', {
      value, name, placeholder, type: 'search', 'data-search': search, autocomplete: 'off',
      spellcheck: 'false', oninput: (e) => later(set, e.target.value.trim()),
    });
  return h('label', { class: `field${search ? ' grow' : ''}`, 'data-key': `field-${name}` },
    h('span', null, label), control);
}

let waiting;
function later(what, value) {
  clearTimeout(waiting);
  waiting = setTimeout(what, 200, value);
}

// --- Acting ---------------------------------------------------------------------------------

export function say(text, kind = 'done') {
  const line = document.getElementById('status');
  line.dataset.kind = kind;
  line.textContent = text && `${kind === 'error' ? '✕ ' : '✓ '}${text}`;
}

/** Does what `body` says and tells the result. */
export async function act(ctx, body) {
  say('');
  try {
    say((await post(body)).done);
  } catch (error) {
    const why = error instanceof Refused ? error.message
      : `The server did not answer (${error.message}): it may have been done or not.`;
    say(why, 'error');
  }
  ctx.refresh();
}

/** A button that says in a dialog what it will do, before it does. */
export function actButton(ctx, { label, title, text, node, body, seconds, quiet }) {
  if (!ctx.mayAct) return null;
  const ask = () => {
    const dialog = document.getElementById('confirm');
    const time = seconds && h('select', { id: 'confirm-seconds' },
      seconds.map(([value, name]) => h('option', { value }, name)));
    document.getElementById('confirm-title').textContent = title;
    document.getElementById('confirm-body').replaceChildren(
      ...text.map((line) => h('p', null, line)),
      time ? h('label', { class: 'field' }, h('span', null, 'For'), time) : '');
    const yes = dialog.querySelector('[data-confirm]');
    yes.textContent = label;
    yes.onclick = () => {
      dialog.close();
      act(ctx, { node, ...body, ...(time && { seconds: Number(time.value) }) });
    };
    dialog.showModal();
  };
  return h('button', {
    type: 'button', class: quiet ? 'quiet' : 'danger', 'data-action': body.action, onclick: ask,
  }, label);
}
