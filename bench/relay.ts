/** How many tokens a second one node relays from a peer to its clients, over 64 streams at once. */
import { readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { NodeProcess } from '../test/support/node-process.ts';
import { median } from './quantile.ts';
import type { BenchResult } from './result.ts';

const STREAMS = 64;
const TOKENS = 1500;
const ROUNDS = 5;
const BIN = path.resolve(import.meta.dirname, '../test/support/scripted-node-main.ts');
const LOOPBACK = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];
/** Of Linux: how /proc counts CPU time. */
const TICKS_PER_SECOND = 100;

export async function benchRelay(): Promise<BenchResult> {
  const serving = new NodeProcess({ bin: BIN, flags: LOOPBACK, env: { SCRIPTED_MODELS: 'fast' } });
  const peer = (await serving.ready()).multiaddrs[0] ?? '';
  const relaying = new NodeProcess({ bin: BIN, flags: [...LOOPBACK, '--peer', peer] });
  const agent = new http.Agent({ keepAlive: true, maxSockets: STREAMS });
  try {
    const { api, pid } = await relaying.ready();
    await relaying.event((event) => event.event === 'peer_up');
    await round(api, agent, 100);
    const [rates, cpu]: [number[], number[]] = [[], []];
    for (let i = 0; i < ROUNDS; i++) {
      const [cpuBefore, startedAt] = [cpuSeconds(pid), performance.now()];
      await round(api, agent, TOKENS);
      const tokens = STREAMS * TOKENS;
      rates.push((tokens * 1000) / (performance.now() - startedAt));
      cpu.push(((cpuSeconds(pid) - cpuBefore) * 1e6) / tokens);
    }
    return {
      name: 'relay',
      rows: [
        {
          what: `tokens relayed a second, ${STREAMS} streams`,
          value: median(rates),
          unit: 'tokens/s',
          target: '>= 20000',
        },
        { what: 'CPU of the relaying node for each token', value: median(cpu), unit: 'us' },
      ],
    };
  } finally {
    agent.destroy();
    await relaying.kill();
    await serving.kill();
  }
}

async function round(api: string, agent: http.Agent, tokens: number): Promise<void> {
  await Promise.all(Array.from({ length: STREAMS }, () => stream(api, agent, tokens)));
}

/** Counts tokens by the length of the text, reading as little as possible: the client shares the processor. */
function stream(api: string, agent: http.Agent, tokens: number): Promise<void> {
  const messages = [{ role: 'user', content: 'x' }];
  const body = JSON.stringify({ model: 'fast', stream: true, max_tokens: tokens, messages });
  return new Promise((resolve, reject) => {
    const request = http.request(
      `${api}/v1/chat/completions`,
      { method: 'POST', agent, headers: { 'content-type': 'application/json' } },
      (response) => {
        let tail = '';
        response.setEncoding('latin1').on('data', (data: string) => {
          tail = (tail + data).slice(-64);
        });
        response.on('error', reject);
        response.on('end', () => (tail.endsWith('data: [DONE]\n\n') ? resolve() : reject(new Error(`cut: ${tail}`))));
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
