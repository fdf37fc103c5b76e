// @modelcontextprotocol/client 2: both eras. In the modern era it answers `input_required` by
// itself, with the same handlers that answer a server's requests in the legacy era.
//
//     MCP_ERA=legacy|modern node client_v2.mjs http URL | stdio COMMAND ARGUMENT...

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { drive, elicited, http, sampled, target, watchFetch } from './steps.mjs';

const heard = [];
const resumed = [];
const transport = http
  ? new StreamableHTTPClientTransport(new URL(target[0]), { fetch: watchFetch(resumed) })
  : new StdioClientTransport({ command: target[0], args: target.slice(1) });
const client = new Client({ name: 'interop-v2', version: '1' }, {
  capabilities: { elicitation: {}, sampling: {} },
  versionNegotiation: { mode: process.env.MCP_ERA === 'modern' ? 'auto' : 'legacy' },
});
client.setRequestHandler('elicitation/create', (request) => elicited(request.params));
client.setRequestHandler('sampling/createMessage', () => sampled);
for (const method of [
  'notifications/message', 'notifications/resources/updated', 'notifications/tools/list_changed',
]) client.setNotificationHandler(method, (one) => void heard.push(one));

await drive({
  client, heard, resumed,
  get modern() { return client.getProtocolEra() === 'modern'; },
  connect: () => client.connect(transport),
  call: (params, options) => client.callTool(params, options),
  // The server is tested, so no result may come from the client's cache.
  list: (params) => client.listTools(params, { cacheMode: 'bypass' }),
});
