/** What a routing decision costs, and how many requests a second pass admission, routing and one hop without a fault. */
import http from 'node:http';
import path from 'node:path';
import { NodeProcess } from '../test/support/node-process.ts';
import { scriptedWord } from '../test/support/scripted-engine.ts';
import { median, quantile } from './quantile.ts';
import type { BenchResult } from './result.ts';
import { DECISION_MODELS, DECISION_PEERS, timeDecisions } from './routing-decision.ts';

const REQUESTS = 4000;
const WARM_UP = 1000;
const ROUNDS = 3;
const CONCURRENCY = 64;
const WORDS = 2;
const FAR = 'far';
const BIN = path.resolve(import.meta.dirname, '../test/support/scripted-node-main.ts');
const LOOPBACK = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];

export async function benchRouting(): Promise<BenchResult> {
  const decisions = timeDecisions();
  const { rates, faults } = await measureHop();
  const over = `${DECISION_PEERS} peers x ${DECISION_MODELS} models`;
  return {
    name: 'routing',
    rows: [
      ...Object.entries(decisions).flatMap(([strategy, times]) => [
        {
          what: `a decision, ${strategy}, ${over}, p50`,
          value: quantile(times, 0.5) * 1000,
          unit: 'us',
          target: '<= 50 us',
        },
        { what: `a decision, ${strategy}, ${over}, p99`, value: quantile(times, 0.99) * 1000, unit: 'us' },
      ]),
      {
        what: `requests through admission, routing and one hop, ${CONCURRENCY} at once`,
        value: median(rates),
        unit: 'requests/s',
        target: '>= 2000',
      },
      { what: `of ${ROUNDS * REQUESTS}, lost or misrouted`, value: faults, unit: 'requests', target: '0' },
    ],
  };
}

async function measureHop(): Promise<{ rates: number[]; faults: number }> {
  const serving = new NodeProcess({ bin: BIN, flags: LOOPBACK, env: { SCRIPTED_MODELS: FAR } });
  const peer = (await serving.ready()).multiaddrs[0] ?? '';
  const asking = new NodeProcess({ bin: BIN, flags: [...LOOPBACK, '--peer', peer] });
  const agent = new http.Agent({ keepAlive: true, maxSockets: CONCURRENCY });
  try {
    const { api } = await asking.ready();
    const { fingerprint } = await serving.ready();
    await asking.event((event) => event.event === 'peer_up');
    const target = { url: `${api}/v1/chat/completions`, agent, servedBy: fingerprint };
    await round(target, WARM_UP, 0);
    const rates: number[] = [];
    let faults = 0;
    for (let i = 1; i <= ROUNDS; i++) {
      const startedAt = performance.now();
      faults += await round(target, REQUESTS, i * REQUESTS);
      rates.push((REQUESTS * 1000) / (performance.now() - startedAt));
    }
    return { rates, faults };
  } finally {
    agent.destroy();
    await asking.kill();
    await serving.kill();
  }
}

interface Target {
  readonly url: string;
  readonly agent: http.Agent;
  /** Fingerprint of the node that must have answered. */
  readonly servedBy: string;
}

/** Asks `count` times and returns how many answers were not the right one. Every seed, and so every answer, differs. */
async function round(target: Target, count: number, firstSeed: number): Promise<number> {
  let next = 0;
  let faults = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const seed = firstSeed + next++;
      if (!(await isRight(target, seed))) faults += 1;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return faults;
}

/** One request without a stream: is its answer the words of its seed, from the node that has the model? */
function isRight({ url, agent, servedBy }: Target, seed: number): Promise<boolean> {
  const messages = [{ role: 'user', content: 'x' }];
  const body = JSON.stringify({ model: FAR, max_tokens: WORDS, seed, messages });
  const expected = Array.from({ length: WORDS }, (_, index) => scriptedWord(seed, index)).join('');
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  return new Promise((resolve) => {
    const request = http.request(url, { method: 'POST', agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (data: string) => {
        text += data;
      });
      response.on('error', () => resolve(false));
      response.on('end', () => {
        const rightNode = response.headers['x-meshnode-node'] === servedBy;
        resolve(rightNode && response.statusCode === 200 && text.includes(JSON.stringify(expected)));
      });
    });
    request.on('error', () => resolve(false));
    request.end(body);
  });
}

if (process.argv[1] === import.meta.filename) {
  const { machineLine, table } = await import('./result.ts');
  console.log(`${table(await benchRouting())}\n${machineLine()}`);
}
