/** Clients of the benches of HTTP: one after the other, 32 at once, and 200 that read streams. */
import { once } from 'node:events';
import http from 'node:http';
import { HTTP_MODEL, STREAM_TOKENS } from './http-servers.ts';
import { median, quantile } from './quantile.ts';

const MESSAGES = [{ role: 'user', content: 'What is 2 plus 2? '.repeat(20) }];
const WHOLE = JSON.stringify({ model: HTTP_MODEL, messages: MESSAGES });
const STREAMED = JSON.stringify({ model: HTTP_MODEL, messages: MESSAGES, stream: true });

function send(url: string, agent: http.Agent, body: string): http.ClientRequest {
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const request = http.request(`${url}/v1/chat/completions`, { agent, method: 'POST', headers });
  request.end(body);
  return request;
}

function ask(url: string, agent: http.Agent, body: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = send(url, agent, body);
    request.on('error', reject);
    request.on('response', (response) => {
      response.resume();
      response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(`${response.statusCode}`))));
    });
  });
}

/** Milliseconds of each of `count` requests, one after the other on one connection. */
export async function latencies(url: string, count: number, body: string = WHOLE): Promise<readonly number[]> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const times: number[] = [];
  for (let i = 0; i < count; i += 1) {
    const startedAt = performance.now();
    await ask(url, agent, body);
    times.push(performance.now() - startedAt);
  }
  agent.destroy();
  return times;
}

/** Requests a second over `connections` connections. */
export async function requestRate(
  url: string,
  count: number,
  connections: number,
  body: string = WHOLE,
): Promise<number> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  let left = count;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await ask(url, agent, body);
    }
  };
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: connections }, worker));
  agent.destroy();
  return (count * 1000) / (performance.now() - startedAt);
}

export interface StreamTimes {
  /** From the question to the first piece, p50. */
  readonly firstMs: number;
  /** Between two pieces of one stream: the largest of all, and p99. */
  readonly largestGapMs: number;
  readonly gapMs: number;
}

/** All at once. @throws when one is cut. */
export async function readStreams(url: string, count: number): Promise<StreamTimes> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: count });
  const firsts: number[] = [];
  const gaps: number[] = [];
  await Promise.all(Array.from({ length: count }, () => readStream(url, agent, { firsts, gaps })));
  agent.destroy();
  return {
    firstMs: median(firsts),
    largestGapMs: gaps.reduce((most, gap) => Math.max(most, gap), 0),
    gapMs: quantile(gaps, 0.99),
  };
}

async function readStream(
  url: string,
  agent: http.Agent,
  { firsts, gaps }: { readonly firsts: number[]; readonly gaps: number[] },
): Promise<void> {
  const startedAt = performance.now();
  const [response] = (await once(send(url, agent, STREAMED), 'response')) as [http.IncomingMessage];
  let lastAt = Number.NaN;
  let text = '';
  for await (const piece of response.setEncoding('latin1')) {
    const now = performance.now();
    if (Number.isNaN(lastAt)) firsts.push(now - startedAt);
    else gaps.push(now - lastAt);
    lastAt = now;
    text += piece as string;
  }
  const tokens = text.split(' token').length - 1;
  if (tokens !== STREAM_TOKENS || !text.endsWith('data: [DONE]\n\n')) throw new Error(`cut after ${tokens} tokens`);
}
