// Web pages use the endpoint in a browser; see browser.sh.
//
// This script serves the pages, under any host name: the browser resolves each name to this
// machine. It prints one line for each step. If any step fails, the exit code is 1.

import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, program] = process.argv.slice(2);

// The scripts of a page. They run in the browser.
const page = {
  // A legacy client, from `initialize` to the end of its session.
  async legacy({ url, read, until, rpc, headers }) {
    const steps = [];
    const post = (session, message, more = {}) => fetch(url, {
      method: 'POST',
      headers: { ...headers, ...(session && { 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' }), ...more },
      body: JSON.stringify({ jsonrpc: '2.0', ...message }),
    });
    const opened = await post(undefined, {
      id: 0, method: 'initialize',
      params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'page', version: '1' } },
    });
    const session = opened.headers.get('mcp-session-id');
    steps.push(['initialize', opened.status === 200 && session !== null]);
    const told = await post(session, { method: 'notifications/initialized' });
    steps.push(['initialized', told.status === 202]);
    const list = await rpc(await post(session, { id: 1, method: 'tools/list' }));
    steps.push(['tools/list', list.result.tools.length === 3]);
    const call = { name: 'count', arguments: {}, _meta: { progressToken: 'p' } };
    const counted = await post(session, { id: 2, method: 'tools/call', params: call });
    const said = await read(counted);
    const isStream = counted.headers.get('content-type') === 'text/event-stream';
    steps.push(['a stream of progress', isStream && said.length === 4 && said[3].result.content[0].text === 'counted']);

    const notices = (more) => fetch(url, {
      headers: { accept: 'text/event-stream', 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25', ...more },
    });
    const hears = async (more) => {
      const heard = until(await notices(more), 'notifications/tools/list_changed');
      await post(session, { id: 3, method: 'tools/call', params: { name: 'change', arguments: {} } });
      return heard;
    };
    const last = await hears({});
    steps.push(['notices', last !== undefined]);
    steps.push(['notices, resumed', await hears({ 'last-event-id': last }) !== undefined]);

    const unknown = await post('nobody', { id: 4, method: 'ping' });
    steps.push(['an unknown session', unknown.status === 404 && /unknown/.test((await unknown.json()).error.message)]);
    const broken = await fetch(url, { method: 'POST', headers, body: '{' });
    steps.push(['no JSON', broken.status === 400]);
    const ended = await fetch(url, { method: 'DELETE', headers: { 'mcp-session-id': session } });
    steps.push(['the end', ended.status === 204]);
    return steps;
  },

  // A modern client.
  async modern({ url, read, until, rpc, headers }) {
    const steps = [];
    const meta = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientInfo': { name: 'page', version: '1' },
      'io.modelcontextprotocol/clientCapabilities': {},
    };
    const post = (method, params = {}, more = {}, signal = undefined) => fetch(url, {
      method: 'POST', signal,
      headers: {
        ...headers, 'mcp-protocol-version': '2026-07-28', 'mcp-method': method,
        ...(params.name && { 'mcp-name': params.name }), ...more,
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: { ...params, _meta: { ...meta, ...params._meta } } }),
    });
    const list = await rpc(await post('tools/list'));
    steps.push(['tools/list', list.result.tools.length === 3]);
    const counted = await post('tools/call', { name: 'count', arguments: {}, _meta: { progressToken: 'p' } });
    const said = await read(counted);
    const isStream = counted.headers.get('content-type') === 'text/event-stream';
    steps.push(['a stream of progress', isStream && said.length === 4 && said[3].result.content[0].text === 'counted']);

    const leaving = new AbortController();
    const heard = until(
      await post('subscriptions/listen', { notifications: { toolsListChanged: true } }, {}, leaving.signal),
      'notifications/tools/list_changed',
    );
    await post('tools/call', { name: 'change', arguments: {} });
    steps.push(['a listen', await heard !== undefined]);
    leaving.abort();

    const zone = await rpc(await post('tools/call', { name: 'zone', arguments: { zone: 'z' } }, { 'mcp-param-zone': 'z' }));
    steps.push(['the header of an argument', zone.result?.content[0].text === 'z']);
    const differs = await post('tools/list', {}, { 'mcp-method': 'ping' });
    steps.push(['a header that differs', differs.status === 400 && (await differs.json()).error.code === -32020]);
    const unknown = await post('no/such');
    steps.push(['an unknown method', unknown.status === 404 && (await unknown.json()).error.code === -32601]);
    const lost = await fetch(`${url}/`, { method: 'POST', headers, body: '{}' });
    steps.push(['a slash too many', lost.status === 404 && /'\/mcp'/.test((await lost.json()).error.message)]);
    return steps;
  },

  // An endpoint that requires authentication.
  async challenged({ url, headers }) {
    const answer = await fetch(url, { method: 'POST', headers: { ...headers, authorization: 'Bearer x' }, body: '{}' });
    return [['the challenge', answer.status === 401 && answer.headers.get('www-authenticate') === 'Bearer']];
  },

  // No response can be read, whatever is sent.
  async refused({ url, headers }) {
    const steps = [];
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
    for (const [what, options] of Object.entries({
      'a POST': { method: 'POST', headers, body },
      'a POST of text': { method: 'POST', body },
      'a GET': {},
      'a GET of a session': { headers: { 'mcp-session-id': 'x' } },
      'a DELETE': { method: 'DELETE' },
    })) {
      steps.push([what, await fetch(url, options).then(() => false, (error) => error.name === 'TypeError')]);
    }
    return steps;
  },

  // An allowed page that sends a header which no client needs.
  async strange({ url, headers }) {
    const sent = fetch(url, { method: 'POST', headers: { ...headers, 'x-strange': '1' }, body: '{}' });
    return [['a header of its own', await sent.then(() => false, (error) => error.name === 'TypeError')]];
  },
};

// Runs one script in the browser, with the helpers that all scripts need.
async function inPage([source, url]) {
  const messages = (text) => text.split('\n').filter((line) => line.startsWith('data: {')).map((line) => JSON.parse(line.slice(6)));
  const isStream = (response) => response.headers.get('content-type') === 'text/event-stream';
  const tools = {
    url,
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    // All messages of a response.
    read: async (response) => isStream(response) ? messages(await response.text()) : [await response.json()],
    rpc: async (response) => (await tools.read(response)).at(-1),
    // Reads a stream until it contains `wanted`. Returns the last event id, or undefined if the
    // stream ends or takes too long.
    until: async (response, wanted) => {
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const late = new Promise((resolve) => setTimeout(resolve, 10_000, { done: true }));
      for (let text = ''; ;) {
        const { done, value } = await Promise.race([reader.read(), late]);
        if (done) return undefined;
        text += value;
        if (text.includes(wanted) && text.endsWith('\n\n')) {
          await reader.cancel();
          return text.match(/^id: (.*)$/gm)?.at(-1).slice(4) ?? '';
        }
      }
    },
  };
  return (0, eval)(`({${source}})`).run(tools);
}

const pages = createServer((_, response) => {
  response.setHeader('content-type', 'text/html').end('<!doctype html><title>page</title>');
});
await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve));
const own = pages.address().port;

const server = spawn(program, [`http://app.example:${own}`], { stdio: ['ignore', 'pipe', 'inherit'] });
process.on('exit', () => server.kill());
const ports = {};
for await (const line of createInterface({ input: server.stdout })) {
  const [endpoint, port] = line.split(' ');
  ports[endpoint] = port;
  if (Object.keys(ports).length === 4) break;
}

const browser = await chromium.launch({
  executablePath, headless: true,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP *.example 127.0.0.1',
  ],
});
let failed = 0, passed = 0;
async function run(what, host, endpoint, name, target = '127.0.0.1') {
  const context = await browser.newContext();
  try {
    const tab = await context.newPage();
    await tab.goto(`http://${host}:${own}/`);
    const source = page[name].toString().replace(/^async \w+/, 'async run');
    for (const [step, holds] of await tab.evaluate(inPage, [source, `http://${target}:${ports[endpoint]}/mcp`])) {
      if (holds) passed++; else failed++;
      console.log(`${holds ? 'ok     ' : 'FAILED '} ${what} of ${host}, ${endpoint}, ${name}: ${step}`);
    }
  } catch (error) {
    failed++;
    console.log(`FAILED  ${what} of ${host}, ${endpoint}, ${name}: ${error.message}`);
  } finally {
    await context.close();
  }
}

for (const endpoint of ['serve', 'router']) {
  for (const host of ['app.example', 'localhost']) {
    await run('a page', host, endpoint, 'legacy');
    await run('a page', host, endpoint, 'modern');
  }
  await run('a page', 'app.example', endpoint, 'strange');
  await run('a stranger', 'evil.example', endpoint, 'refused');
  await run('a rebound page', 'evil.example', endpoint, 'refused', 'evil.example');
}
await run('a page', 'app.example', 'closed', 'challenged');
await run('its own page', '127.0.0.1', 'open', 'legacy');
await run('its own page', '127.0.0.1', 'open', 'modern');
await run('a stranger', 'evil.example', 'open', 'refused');
await run('a rebound page', 'evil.example', 'open', 'refused', 'evil.example');

await browser.close();
pages.close();
server.kill();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
