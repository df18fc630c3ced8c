/** From the start of a process to its first answer through a peer. */
import http from 'node:http';
import { FAR_MODEL, startAsking, startServing } from './mesh-pair.ts';
import { median } from './quantile.ts';
import type { BenchResult } from './result.ts';
import { timedChat } from './timed-chat.ts';

const ROUNDS = 7;

export async function benchJoin(): Promise<BenchResult> {
  const serving = startServing();
  const agent = new http.Agent({ keepAlive: true });
  const times: number[] = [];
  try {
    const { api, multiaddrs } = await serving.ready();
    const question = { model: FAR_MODEL, prompt: 'What is 2 plus 2?', maxTokens: 8, agent };
    await timedChat({ ...question, api });
    for (let round = 0; round < ROUNDS; round++) {
      const startedAt = performance.now();
      const asking = startAsking(multiaddrs[0] ?? '');
      const ready = await asking.ready();
      await asking.event((event) => event.event === 'peer_up');
      await timedChat({ ...question, api: ready.api });
      times.push(performance.now() - startedAt);
      await asking.kill();
    }
  } finally {
    agent.destroy();
    await serving.kill();
  }
  const value = median(times);
  return {
    name: 'join',
    rows: [{ what: 'process start to first answer through a peer, median', value, unit: 'ms', target: '<= 2000 ms' }],
  };
}
