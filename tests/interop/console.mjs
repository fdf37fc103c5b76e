// The console in a browser; see console.sh.
//
// Prints one line for each step. If any step fails, the exit code is 1.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, program, shots] = process.argv.slice(2);
const PATIENCE = 20_000;

let failed = false;
const step = async (name, work) => {
  try {
    await work();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed = true;
    console.log(`FAILED  ${name}: ${String(error.message ?? error).split('\n').slice(0, 8).join(' | ')}`);
  }
};

const free = (make, on) => new Promise((done) => {
  const socket = make();
  on(socket, () => { const { port } = socket.address(); socket.close(() => done(port)); });
});
const udp = () => free(() => createSocket('udp4'), (it, then) => it.bind(0, '127.0.0.1', then));
const tcp = () => free(createServer, (it, then) => it.listen(0, '127.0.0.1', then));

// A node that serves, and where its console is.
const nodes = [];
const start = async (name, gossip, more) => {
  const http = await tcp();
  const process = spawn(program, ['--http', `127.0.0.1:${http}`, '--node', name, '--gossip', `127.0.0.1:${gossip}`, '--console', '0', '--tokens', ...more]);
  nodes.push(process);
  process.ended = new Promise((done) => process.once('exit', done));
  const console = await new Promise((found, lost) => {
    let url;
    process.ended.then(() => lost(new Error(`node ${name} ended`)));
    createInterface({ input: process.stderr }).on('line', (line) => {
      url = /Console: (\S+)/.exec(line)?.[1] ?? url;
      if (url && line.includes('Serving')) found(url);
    });
  });
  return { name, console, mcp: `http://127.0.0.1:${http}/mcp`, process };
};

// A legacy client, which never opens the stream of its notices.
class Client {
  constructor(url, name, token = undefined) { Object.assign(this, { url, name, token, ids: 0 }); }

  async send(message) {
    const response = await fetch(this.url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json', accept: 'application/json, text/event-stream',
        ...(this.token && { authorization: `Bearer ${this.token}` }),
        ...(this.session && { 'mcp-session-id': this.session, 'mcp-protocol-version': '2025-11-25' }),
      },
      body: JSON.stringify({ jsonrpc: '2.0', ...message }),
    });
    this.session ??= response.headers.get('mcp-session-id');
    return response.text();
  }

  request(method, params) { return this.send({ id: (this.ids += 1), method, params }); }

  call(name, args = {}) { return this.request('tools/call', { name, arguments: args, _meta: { progressToken: 'p' } }); }

  async open() {
    await this.request('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: this.name, version: '1' } });
    await this.send({ method: 'notifications/initialized' });
    return this;
  }
}

const gossip = await udp();
const seed = ['--bare', '--seed', `127.0.0.1:${gossip}`];
const one = await start('one', gossip, []);
const two = await start('two', await udp(), seed);
const three = await start('three', await udp(), seed);

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const page = await browser.newPage({ viewport: { width: 1360, height: 900 } });
page.setDefaultTimeout(PATIENCE);
const complaints = [];
page.on('pageerror', (error) => complaints.push(error.stack ?? error.message));
page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));

const shot = async (name) => {
  if (!shots) return;
  for (const [scheme, width] of [['light', 1360], ['dark', 1360], ['light', 390]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 900 });
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${shots}/${name}-${scheme}-${width}.png` });
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 1360, height: 900 });
};
const go = async (view) => {
  await page.goto(`${two.console}#/${view}`);
  await page.waitForSelector(`main[data-view="${view || 'overview'}"]`);
};
const act = async (button) => {
  await page.click(button);
  await page.click('#confirm [data-confirm]');
  await page.waitForFunction(() => document.querySelector('#status')?.textContent.trim());
};
const text = (selector) => page.textContent(selector);

// A client of node one that falls behind, and one that works.
const slow = await new Client(one.mcp, 'slow-client').open();
const busy = await new Client(two.mcp, 'busy-client').open();
const watched = [1, 2, 3, 4, 5].map((it) => `test://template/${it}/data`);
for (const uri of watched) await slow.request('resources/subscribe', { uri });
const touch = async () => {
  for (const uri of watched) await busy.call('touch_resource', { uri });
};

await step('a page of any node shows all nodes', async () => {
  await go('');
  for (const { name } of [one, two, three]) await page.waitForSelector(`[data-node="${name}"][data-failed="false"]`);
});

await step('a client that does not read turns red, with the reason', async () => {
  await touch();
  await go('sessions');
  const row = page.locator('[data-session][data-slow="true"]', { hasText: 'slow-client' });
  await row.waitFor();
  if (!/wait/.test(await row.textContent())) throw new Error('no reason in words');
  await shot('sessions');
  await row.locator('a').first().click();
  await page.waitForSelector('main[data-view="session"]');
});

await step('followed, it says what became of each message and why', async () => {
  await page.click('[data-action="follow"]');
  await page.waitForSelector('[data-action="unfollow"]');
  await touch();
  await busy.call('burst', { n: 3 });
  const coalesced = page.locator('[data-outcome="coalesced"]').first();
  await coalesced.waitFor();
  if (!/waiting/.test(await coalesced.textContent())) throw new Error('no reason');
  await busy.call('touch_resource', { uri: 'file:///nobody-watches-this' });
  const filtered = page.locator('[data-outcome="filtered"]').first();
  await filtered.waitFor();
  if (!/watch/.test(await filtered.textContent())) throw new Error('no reason');
  await shot('session');
  await page.click('[data-action="unfollow"]');
  await page.waitForSelector('[data-action="follow"]');
});

for (const view of ['actors', 'catalog', 'events', 'tasks', 'log']) {
  await step(`the view ${view}`, async () => {
    await go(view);
    if (view === 'catalog') await page.getByText('touch_resource', { exact: false }).first().waitFor();
    if (view === 'actors') await page.waitForSelector('[data-actor="registry"]');
    if (view === 'log') {
      await busy.call('echo', { text: 'hello' });
      await page.getByText('call finished', { exact: false }).first().waitFor();
    }
    await page.waitForTimeout(500);
    await shot(view);
  });
}

await step('an unknown tool changes the lists of all nodes, and the catalog shows where it is', async () => {
  await busy.call('add_tool', { name: 'seen-in-the-console' });
  await go('catalog');
  await page.getByText('seen-in-the-console').first().waitFor();
});

const session = async (name) => {
  await go('sessions');
  await page.locator('[data-session]', { hasText: name }).locator('a').first().click();
  await page.waitForSelector('main[data-view="session"]');
};

await step('action: a call is cancelled', async () => {
  const calling = busy.call('sleep', { ms: 60_000 });
  await session('busy-client');
  await page.waitForSelector('[data-action="cancelCall"]');
  await act('[data-action="cancelCall"]');
  const answer = await calling;
  if (!/cancelled/.test(answer)) throw new Error(answer);
});

await step('action: a session is restarted, and goes on', async () => {
  await session('busy-client');
  await act('[data-action="restartSession"]');
  const answer = await busy.call('echo', { text: 'still here' });
  if (!/still here/.test(answer)) throw new Error(answer);
});

await step('action: a session is ended', async () => {
  await session('slow-client');
  await act('[data-action="endSession"]');
  const answer = await slow.request('ping');
  if (!/unknown|404|session/.test(answer)) throw new Error(answer);
});

await step('action: a principal is locked out', async () => {
  const ann = await new Client(three.mcp, 'client-of-ann', 'the-token-of-ann').open();
  await session('client-of-ann');
  await act('[data-action="revoke"]');
  const answer = await ann.request('ping');
  if (/"result"/.test(answer)) throw new Error(answer);
});

await step('a frozen node is said to be one', async () => {
  three.process.kill('SIGSTOP');
  await go('');
  await page.waitForSelector('[data-node="three"][data-failed="true"]');
  await shot('frozen');
  three.process.kill('SIGCONT');
  await page.waitForSelector('[data-node="three"][data-failed="false"]');
});

await step('action: a node is drained', async () => {
  await go('');
  await act('[data-node="three"] [data-action="drain"]');
  await three.process.ended;
});

await step('the overview, after all that', async () => {
  await go('');
  await page.waitForSelector('[data-node="one"][data-failed="false"]');
  await page.waitForTimeout(2_000);
  await shot('overview');
});

await step('the page runs without an error', async () => {
  // What was refused or not there is told by the browser, too.
  const own = complaints.filter((it) => !/status of (403|404)/.test(it));
  if (own.length) throw new Error(own.join(' | '));
});

await browser.close();
nodes.forEach((it) => it.kill('SIGKILL'));
process.exit(failed ? 1 : 0);
