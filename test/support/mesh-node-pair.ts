/** Whole nodes in this process, with scripted engines, on loopback and without multicast: asked over their own facades. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { silentLogger } from '../../node/common/logger.ts';
import { type FlagValues, loadConfig } from '../../node/config.ts';
import { configSource } from '../../node/config-watch.ts';
import { MeshNode } from '../../node/mesh-node.ts';
import type { NodeEvent } from '../../node/node-event.ts';
import { ScriptedEngine } from './scripted-engine.ts';

export interface WholeNodeOptions {
  readonly models?: readonly string[];
  readonly flags?: FlagValues;
}

export interface WholeNode {
  readonly node: MeshNode;
  readonly api: string;
  readonly dataDir: string;
  readonly configFile: string;
  readonly fingerprint: string;
  readonly address: string;
  readonly events: readonly NodeEvent[];
  get(route: string): Promise<unknown>;
  /** Status, headers and text of a chat request. */
  chat(model: string, more?: ChatOptions): Promise<ChatAnswer>;
}

export interface ChatOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly stream?: boolean;
}

export interface ChatAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** Started; stopped and its files removed when the test is over. */
export async function wholeNode(t: TestContext, { models = [], flags = {} }: WholeNodeOptions): Promise<WholeNode> {
  const home = await mkdtemp(path.join(tmpdir(), 'meshnode-whole-'));
  const dataDir = path.join(home, 'data');
  const configFile = path.join(home, '.config/meshnode/config.json');
  const alone = { 'no-mdns': ['true'], port: ['0'], listen: ['/ip4/127.0.0.1/tcp/0'], 'data-dir': [dataDir] };
  const input = { flags: { ...alone, 'secrets-store': ['plain'], ...flags }, env: {}, cwd: home, home, hostName: 'w' };
  const node = new MeshNode(loadConfig(input).config, {
    logger: silentLogger,
    source: configSource(input),
    engine: ({ fingerprint }) => new ScriptedEngine({ fingerprint, models, tokenDelayMs: 0 }),
  });
  const events: NodeEvent[] = [];
  const ready = new Promise<Extract<NodeEvent, { event: 'ready' }>>((resolve) => {
    node.onEvent((event) => {
      events.push(event);
      if (event.event === 'ready') resolve(event);
    });
  });
  t.after(async () => {
    await node.stop();
    await rm(home, { recursive: true, force: true });
  });
  await node.start();
  const { api, fingerprint, multiaddrs } = await ready;
  return {
    ...{ node, api, dataDir, configFile, fingerprint, events, address: multiaddrs[0] ?? '' },
    get: async (route) => await (await fetch(api + route)).json(),
    chat: async (model, { headers = {}, stream = false } = {}) => {
      const body = JSON.stringify({ model, stream, max_tokens: 5, messages: [{ role: 'user', content: 'Hi' }] });
      const init = { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } };
      const response = await fetch(`${api}/v1/chat/completions`, init);
      return { status: response.status, headers: response.headers, text: await response.text() };
    },
  };
}

/** Waits until the ids of all models that the node can use are exactly these. */
export async function usable(node: WholeNode, ids: readonly string[]): Promise<void> {
  const wanted = ids.toSorted().join();
  const patience = AbortSignal.timeout(20_000);
  for (let found = ''; found !== wanted; ) {
    patience.throwIfAborted();
    const { data } = (await node.get('/v1/models')) as { data: readonly { id: string }[] };
    found = data
      .map(({ id }) => id)
      .toSorted()
      .join();
    if (found !== wanted) await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
