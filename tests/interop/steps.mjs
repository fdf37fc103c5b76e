// The steps of both TypeScript clients. `peer` contains what differs between them:
//
//   modern            whether the modern era was negotiated
//   call              (params, options) => the result of tools/call
//   list              (params) => the result of tools/list
//   heard             the received notifications, filled by the client
//   resumed           the Last-Event-ID headers that were sent, filled by `watchFetch`
//
// With MCP_ODD in the environment the server has unusual types.
//
// Each step that passes is one word on stdout. The first that fails ends the run.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import addFormats from 'ajv-formats';
import Ajv2020 from 'ajv/dist/2020.js';

export const [kind, ...target] = process.argv.slice(2);
export const http = kind === 'http';

const odd = process.env.MCP_ODD !== undefined;

export const elicited = ({ requestedSchema: { required } }) => ({
  action: 'accept',
  content: odd
    ? Object.fromEntries(required.map((name) => [name, 1]))
    : { username: 'ada', email: 'ada@example.com' },
});
export const sampled = {
  role: 'assistant', model: 'none', stopReason: 'endTurn', content: { type: 'text', text: 'forty-two' },
};

export const watchFetch = (resumed) => (url, options) => {
  const id = new Headers(options?.headers).get('last-event-id');
  if (id !== null) resumed.push(id);
  return fetch(url, options);
};

async function until(what, holds) {
  for (const end = Date.now() + 5000; Date.now() < end; await sleep(20)) {
    if (await holds()) return;
  }
  assert.fail(`${what}: not within 5 s`);
}

function steps({ client, modern, call, list, heard, resumed }) {
  const tool = async (name, args = {}, options) => {
    const { content, isError } = await call({ name, arguments: args }, options);
    assert.ok(!isError, `${name}: ${content[0]?.text}`);
    return content[0].text;
  };
  const names = async () => {
    const all = [];
    let cursor;
    do {
      const page = await list(cursor === undefined ? {} : { cursor });
      all.push(...page.tools.map((tool) => tool.name));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return all;
  };
  const told = (method, uri) =>
    heard.some((one) => one.method === method && (uri === undefined || one.params.uri === uri));
  // In the modern era the client receives only the notices that it listens for.
  const listen = async (filter, during) => {
    heard.length = 0;
    const listening = modern ? await client.listen(filter) : undefined;
    await during();
    await listening?.close();
  };

  return {
    async list() {
      const all = await names();
      assert.equal(new Set(all).size, all.length, 'a tool is listed twice');
      const offered = [
        'test_simple_text', 'json_schema_2020_12_tool', 'test_tool_with_progress', 'test_sampling',
        'test_input_required_result_elicitation', 'add_tool', 'slow_tool', 'echo', 'panic',
      ];
      for (const name of offered) assert.ok(all.includes(name), `${name} is not listed`);
    },

    async progress() {
      const sent = [[0, 100], [50, 100], [100, 100]];
      const [arrived, seen] = [[], []];
      const deliver = client.transport.onmessage;
      client.transport.onmessage = (message, extra) => {
        const { progress, total } = message.params ?? {};
        if (message.method === 'notifications/progress') arrived.push([progress, total]);
        return deliver(message, extra);
      };
      await tool('test_tool_with_progress', {}, {
        onprogress: ({ progress, total }) => seen.push([progress, total]),
      });
      await sleep(100);
      client.transport.onmessage = deliver;
      assert.deepEqual(arrived, sent);
      // Over stdio both clients drop a progress value that arrives in one chunk with the result:
      // they handle the notification after the result, which ends `onprogress`.
      const lost = http ? 0 : sent.length - seen.length;
      assert.ok(lost <= 1, `onprogress saw only ${JSON.stringify(seen)}`);
      assert.deepEqual(seen, sent.slice(0, sent.length - lost));
    },

    async log() {
      heard.length = 0;
      if (!modern) await client.setLoggingLevel('info');
      const params = { name: 'test_tool_with_logging', arguments: {} };
      if (modern) params._meta = { 'io.modelcontextprotocol/logLevel': 'info' };
      await call(params);
      await sleep(100);
      const messages = heard.filter((one) => one.method === 'notifications/message');
      assert.deepEqual(messages.map((one) => [one.params.level, one.params.data]), [
        ['info', 'Tool execution started'],
        ['info', 'Tool processing data'],
        ['info', 'Tool execution completed'],
      ]);
    },

    async list_changed() {
      const name = `added_${process.pid}`;
      const changed = () => told('notifications/tools/list_changed');
      await listen({ toolsListChanged: true }, async () => {
        await tool('add_tool', { name });
        await until('list_changed after add_tool', changed);
        assert.ok((await names()).includes(name), 'the added tool is not listed');
        assert.equal(await tool(name), `This is ${name}.`);
        heard.length = 0;
        await tool('remove_tool', { name });
        await until('list_changed after remove_tool', changed);
        assert.ok(!(await names()).includes(name), 'the removed tool is listed');
      });
    },

    async updated() {
      const uri = 'test://watched-resource';
      await listen({ resourceSubscriptions: [uri] }, async () => {
        if (!modern) await client.subscribeResource({ uri });
        await tool('touch_resource', { uri });
        await until('updated', () => told('notifications/resources/updated', uri));
        if (!modern) await client.unsubscribeResource({ uri });
      });
    },

    async elicitation() {
      const text = await tool('test_elicitation', { message: 'Who are you?' });
      assert.equal(text, 'User response: ada, ada@example.com');
    },

    async sampling() {
      assert.equal(await tool('test_sampling', { prompt: 'The answer?' }), 'LLM response: forty-two');
    },

    async cancel() {
      const counts = async () => JSON.parse(await tool('cancel_log'));
      const before = await counts();
      const abort = new AbortController();
      const slow = tool('slow_tool', { seconds: 30 }, { signal: abort.signal });
      slow.catch(() => {});
      await until('slow_tool starts', async () => (await counts()).started === before.started + 1);
      abort.abort();
      await assert.rejects(slow);
      await until('slow_tool is cancelled', async () =>
        (await counts()).cancelled === before.cancelled + 1);
      assert.equal((await counts()).finished, before.finished);
    },

    // The modern era has no Last-Event-ID, and neither has stdio.
    ...(http && !modern && {
      async resume() {
        resumed.length = 0;
        const text = await tool('test_reconnection');
        assert.equal(text, 'Reconnection test completed successfully');
        assert.ok(resumed.length > 0, 'the stream was never resumed');
      },
    }),
  };
}

function oddSteps({ modern, call, list }) {
  const tools = async () => {
    const all = [];
    let cursor;
    do {
      const page = await list(cursor === undefined ? {} : { cursor });
      all.push(...page.tools);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return all;
  };
  // Strict by default: it throws at unknown keywords.
  const ajv = addFormats.default(new Ajv2020.default({ logger: false }));
  const compiled = (name, schema) => {
    try {
      return ajv.compile(schema);
    } catch (error) {
      return assert.fail(`${name}: ${error.message}: ${JSON.stringify(schema)}`);
    }
  };

  return {
    async schemas() {
      const all = await tools();
      assert.ok(all.length > 40, `only ${all.length} tools`);
      for (const { name, inputSchema, outputSchema } of all) {
        compiled(name, inputSchema);
        assert.equal(inputSchema.type, 'object', name);
        assert.equal(typeof inputSchema.properties, 'object', name);
        if (outputSchema === undefined) continue;
        compiled(name, outputSchema);
        if (!modern) assert.equal(outputSchema.type, 'object', name);
      }
    },

    async calls() {
      for (const { name, _meta, outputSchema } of await tools()) {
        const result = await call({ name, arguments: _meta.example });
        const { content, structuredContent, isError } = result;
        assert.equal(isError === true, name === 'give_failure', `${name}: ${JSON.stringify(result)}`);
        if (!modern) assert.ok(content.length > 0, `${name} gives nothing`);
        if (outputSchema !== undefined && !isError) {
          const fits = compiled(name, outputSchema);
          assert.ok(fits(structuredContent), `${name}: ${JSON.stringify(result)}`);
        }
      }
    },
  };
}

export async function drive(peer) {
  let doing = 'connect';
  try {
    await peer.connect();
    assert.equal(peer.modern, process.env.MCP_ERA === 'modern', 'the other era was negotiated');
    for (const [name, step] of Object.entries(odd ? oddSteps(peer) : steps(peer))) {
      doing = name;
      await step();
      console.log(name);
    }
    doing = 'close';
    await peer.client.close();
  } catch (error) {
    console.error(`${doing}: ${error.stack}`);
    process.exit(1);
  }
  process.exit(0);
}
