/** What the bench of the HTTP hop asks: a server with OpenAI's API that answers at once, and a bare reverse proxy. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';

/** Tokens of a streamed answer, and the time between two. */
export const STREAM_TOKENS = 60;
export const TOKEN_MS = 25;
export const HTTP_MODEL = 'bench';

export interface BenchServer {
  readonly url: string;
  stop(): void;
}

const HOST = '127.0.0.1';
const JSON_TYPE = 'application/json';
const USAGE = { prompt_tokens: 9, completion_tokens: 3, total_tokens: 12 };

/** In a process of its own. `target`: the server behind a proxy. */
export async function startBenchServer(kind: 'upstream' | 'proxy', target = ''): Promise<BenchServer> {
  const child: ChildProcess = fork(import.meta.filename, ['--serve', kind, target]);
  const [port] = (await once(child, 'message')) as [number];
  return { url: `http://${HOST}:${port}`, stop: () => void child.kill() };
}

function upstream(): http.Server {
  const message = { role: 'assistant', content: '2 plus 2 is 4.' };
  const choices = [{ index: 0, message, logprobs: null, finish_reason: 'stop' }];
  const answer = JSON.stringify({ id: 'x', object: 'chat.completion', model: HTTP_MODEL, choices, usage: USAGE });
  const models = JSON.stringify({ object: 'list', data: [{ id: HTTP_MODEL, object: 'model' }] });
  return http.createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      if (request.method === 'POST' && Buffer.concat(pieces).includes('"stream":true')) {
        stream(response);
        return;
      }
      const isKnown = request.method === 'POST' || request.url === '/v1/models';
      const body = request.method === 'POST' ? answer : isKnown ? models : '{}';
      response.writeHead(isKnown ? 200 : 404, { 'content-type': JSON_TYPE, 'content-length': body.length });
      response.end(body);
    });
  });
}

const event = (choice: object): string =>
  `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', choices: [{ index: 0, ...choice }] })}\n\n`;
const TOKEN = event({ delta: { content: ' token' }, finish_reason: null });
const LAST = `${event({ delta: {}, finish_reason: 'stop' })}data: [DONE]\n\n`;

function stream(response: http.ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(TOKEN);
  let sent = 1;
  const timer = setInterval(() => {
    sent += 1;
    response.write(TOKEN);
    if (sent < STREAM_TOKENS) return;
    clearInterval(timer);
    response.end(LAST);
  }, TOKEN_MS);
  response.on('close', () => clearInterval(timer));
}

function proxy(target: string): http.Server {
  const agent = new http.Agent({ keepAlive: true });
  return http.createServer((request, response) => {
    const { method, url, headers } = request;
    const asked = http.request(`${target}${url}`, { agent, method: method ?? 'GET', headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    asked.on('error', () => response.destroy());
    request.pipe(asked);
  });
}

if (process.argv[1] === import.meta.filename && process.argv[2] === '--serve') {
  const [, , , kind, target = ''] = process.argv;
  const server = kind === 'proxy' ? proxy(target) : upstream();
  server.keepAliveTimeout = 60_000;
  server.listen(0, HOST, () => process.send?.((server.address() as AddressInfo).port));
  process.on('disconnect', () => process.exit());
}
