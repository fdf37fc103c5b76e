// @modelcontextprotocol/sdk 1: only the legacy era.
//
//     MCP_ERA=legacy node client_v1.mjs http URL | stdio COMMAND ARGUMENT...

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema, ElicitRequestSchema, LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema, ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { drive, elicited, http, sampled, target, watchFetch } from './steps.mjs';

const heard = [];
const resumed = [];
const transport = http
  ? new StreamableHTTPClientTransport(new URL(target[0]), { fetch: watchFetch(resumed) })
  : new StdioClientTransport({ command: target[0], args: target.slice(1) });
const capabilities = { elicitation: {}, sampling: {} };
const client = new Client({ name: 'interop-v1', version: '1' }, { capabilities });
client.setRequestHandler(ElicitRequestSchema, (request) => elicited(request.params));
client.setRequestHandler(CreateMessageRequestSchema, () => sampled);
for (const schema of [
  LoggingMessageNotificationSchema, ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
]) client.setNotificationHandler(schema, (one) => void heard.push(one));

await drive({
  client, heard, resumed,
  modern: false,
  connect: () => client.connect(transport),
  call: (params, options) => client.callTool(params, undefined, options),
  list: (params) => client.listTools(params),
});
