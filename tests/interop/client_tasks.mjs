// @modelcontextprotocol/ext-tasks: tasks of the modern era, over HTTP. Its requests are sent as its
// own documentation describes, once with `Mcp-Name` and once without.
//
//     node client_tasks.mjs http URL

import assert from 'node:assert/strict';

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import {
  createTaskSessionFromClient, resultFromTaskOutcome,
} from '@modelcontextprotocol/ext-tasks/client';

const url = process.argv[3];
const clientInfo = { name: 'interop-tasks', version: '1' };
const capabilities = { elicitation: {}, extensions: { 'io.modelcontextprotocol/tasks': {} } };

// Sends requests that the SDK's client cannot send by itself.
const dispatch = (named) => async (request) => {
  const { name, taskId } = request.params;
  const about = taskId !== undefined && named ? taskId : name;
  const answer = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': request.method,
      ...(about !== undefined && { 'mcp-name': about }),
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: crypto.randomUUID(), ...request }),
  });
  const body = await answer.text();
  const messages = answer.headers.get('content-type').startsWith('text/event-stream')
    ? [...body.matchAll(/^data: ?(.+)$/gm)].map(([, data]) => JSON.parse(data))
    : [JSON.parse(body)];
  const { result, error } = messages.find((one) => one.method === undefined);
  return error === undefined ? { kind: 'result', result } : { kind: 'error', error };
};

const text = (outcome) => resultFromTaskOutcome(outcome).content[0].text;
const steps = {
  greet: [{ name: 'ada' }, (outcome) => assert.equal(text(outcome), 'Hello, ada!')],
  slow_compute: [
    { seconds: 0.3, label: 'it' },
    (outcome) => assert.equal(text(outcome), 'it computed for 0.3 s'),
  ],
  failing_job: [{}, (outcome) => assert.equal(text(outcome), 'the job failed')],
  protocol_error_job: [{}, (outcome) => assert.throws(() => text(outcome))],
  confirm_delete: [{ filename: 'f' }, (outcome) => assert.equal(text(outcome), 'Deleted f')],
  multi_input: [{}, (outcome) => assert.match(text(outcome), /^Heard .*ada.* and .*ada/)],
};

for (const named of [true, false]) {
  const client = new Client(clientInfo, { capabilities, versionNegotiation: { mode: 'auto' } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  const session = createTaskSessionFromClient(client, {
    endpointId: 'everything',
    rawDispatch: dispatch(named),
    v2RequestFraming: { protocolVersion: '2026-07-28', clientInfo, clientCapabilities: capabilities },
    onInputRequest: () => ({ action: 'accept', content: { confirm: true, name: 'ada' } }),
  });
  for (const [name, [args, check]] of Object.entries(steps)) {
    try {
      const execution = await session.callTool(name, args);
      check((await execution.settle()).outcome);
      console.log(name);
    } catch (error) {
      console.error(`${name}, ${named ? 'with' : 'without'} Mcp-Name: ${error.stack}`);
      process.exit(1);
    }
  }
  await session.close();
  await client.close();
}
process.exit(0);
