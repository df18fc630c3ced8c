/** A small HTTP server that plays the facade of a running node, for tests of the commands that talk to one. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { ModelResidency } from '../../node/index.ts';
import { prepareDataDir } from '../../node/storage/data-dir.ts';
import { RuntimeFile } from '../../node/storage/runtime-file.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';

export const FINGERPRINT = '12D3KooWPlayedNodePlayedNodePlayedNodePlayedNode0001';

export const entry = (id: string, over: Partial<CatalogEntry> = {}): CatalogEntry => ({
  id,
  digest: null,
  quantization: 'Q4_K_M',
  contextLength: 8192,
  sizeBytes: 4_200_000_000,
  state: 'resident',
  slots: 4,
  tokensPerSecond: 41.25,
  ...over,
});

/** What the server says; tests change it as they need. */
export interface Script {
  key: string | null;
  models: CatalogEntry[];
  peers: object[];
  /** Writes the answer to a chat request whose body is given. */
  chat(body: { model: string; messages: { role: string; content: string }[] }, response: ServerResponse): void;
}

export interface PlayedNode extends AsyncDisposable {
  readonly api: string;
  readonly script: Script;
}

/** One event of a streamed answer. */
export function sse(content: string): string {
  return `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;
}

/** Starts the server and leaves the note in `dataDir` by which the commands find it. */
export async function playNode(dataDir: string): Promise<PlayedNode> {
  const script: Script = {
    key: null,
    models: [entry('small')],
    peers: [
      {
        fingerprint: '12D3KooWPeerPeerPeerPeerPeerPeerPeerPeerPeer00000002',
        name: 'ce\u001b[31mllar\u202e',
        version: '0.1.0',
        status: 'online',
        addresses: ['/ip4/192.0.2.7/tcp/8643'],
        latencyMs: 0.42,
        load: null,
        models: [entry('large', { state: 'on-disk', tokensPerSecond: null })],
        priority: 0,
      },
    ],
    chat: (_, response) => void response.end(`${sse('Hel')}: waiting\n\n${sse('lo')}data: [DONE]\n\n`),
  };
  const server = createServer((request, response) => void answer(script, request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const api = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await prepareDataDir(dataDir);
  await new RuntimeFile(dataDir).write({ pid: process.pid, api, fingerprint: FINGERPRINT, startedAt: 1 });
  return {
    api,
    script,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What the server says of the memory of a model of its own. */
function residency({ id, state }: CatalogEntry): ModelResidency {
  const need = { weightsBytes: 4.2e9, contextBytes: 1e9, computeBytes: 2e8, processBytes: 1e8, totalBytes: 5.5e9 };
  return { model: id, state, pinned: true, need, inFlight: 0, queued: 0, unloadInMs: null, problem: null };
}

async function answer(script: Script, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const json = (status: number, value: object): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  };
  if (script.key !== null && request.headers.authorization !== `Bearer ${script.key}`) {
    json(401, {
      error: { message: 'a key is needed', type: 'authentication_error', param: null, code: 'unauthorized' },
    });
  } else if (request.url === '/api/v1/node') {
    json(200, {
      name: 'attic',
      version: '0.1.0',
      fingerprint: FINGERPRINT,
      epoch: 1,
      uptimeMs: 3_720_000,
      api: `http://${request.headers.host}`,
      multiaddrs: [],
      draining: false,
      engineBuild: 'b9999',
      models: script.models,
    });
  } else if (request.url === '/api/v1/peers') json(200, { peers: script.peers });
  else if (request.url === '/api/v1/residency')
    json(200, { budgetBytes: 8 * 2 ** 30, models: script.models.map(residency) });
  else if (request.url === '/v1/models')
    json(200, { object: 'list', data: [...script.models, { id: 'large' }].map(({ id }) => ({ id })) });
  else script.chat(JSON.parse(await text(request)) as never, response);
}
