/** What one hop through the mesh adds to an answer, against asking the serving node's own facade, in turn. */
import http from 'node:http';
import { FAR_MODEL, startMeshPair } from './mesh-pair.ts';
import { median, quantile } from './quantile.ts';
import type { BenchResult } from './result.ts';
import { type ChatQuestion, timedChat } from './timed-chat.ts';

const FIRST_TOKEN_ROUNDS = 400;
const STREAM_ROUNDS = 40;
const STREAM_TOKENS = 120;

export async function benchMeshHop(): Promise<BenchResult> {
  const pair = await startMeshPair();
  const agent = new http.Agent({ keepAlive: true });
  try {
    const [direct, hop] = [(await pair.serving.ready()).api, (await pair.asking.ready()).api];
    const question = { model: FAR_MODEL, agent };
    const short = { ...question, prompt: 'What is 2 plus 2?', maxTokens: 2 };
    await alternate(short, [direct, hop], 20);
    const [directFirst, hopFirst] = await alternate(short, [direct, hop], FIRST_TOKEN_ROUNDS);
    const long = { ...question, prompt: 'Tell me a story about a fox named Anna.', maxTokens: STREAM_TOKENS };
    const [directLong, hopLong] = await alternate(long, [direct, hop], STREAM_ROUNDS);
    const perToken = hopLong.map((chat, i) => afterFirst(chat) - afterFirst(directLong[i] ?? chat));
    const first = (chats: readonly { firstTextMs: number }[], q: number): number =>
      quantile(
        chats.map((chat) => chat.firstTextMs),
        q,
      );
    return {
      name: 'mesh-hop',
      rows: [
        row('time to first text added by a hop, p50', first(hopFirst, 0.5), first(directFirst, 0.5), '<= 1.5 ms added'),
        row('time to first text added by a hop, p99', first(hopFirst, 0.99), first(directFirst, 0.99), '<= 5 ms added'),
        { what: 'time per token added by a hop, p50', value: median(perToken), unit: 'ms', target: '<= 0.5 ms' },
      ],
    };
  } finally {
    agent.destroy();
    await pair.close();
  }
}

type Timed = Awaited<ReturnType<typeof timedChat>>;

const afterFirst = (chat: Timed): number => (chat.totalMs - chat.firstTextMs) / chat.chunks;

/** Asks both in turn, swapping who is first, so that drift of the machine hits both alike. */
async function alternate(
  question: Omit<ChatQuestion, 'api'>,
  [a, b]: [string, string],
  rounds: number,
): Promise<[Timed[], Timed[]]> {
  const [fromA, fromB]: [Timed[], Timed[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const ask = async (api: string, into: Timed[]): Promise<void> => {
      into.push(await timedChat({ ...question, api }));
    };
    if (round % 2 === 0) {
      await ask(a, fromA);
      await ask(b, fromB);
    } else {
      await ask(b, fromB);
      await ask(a, fromA);
    }
  }
  return [fromA, fromB];
}

const row = (what: string, hop: number, direct: number, target: string): BenchResult['rows'][number] => ({
  what,
  value: hop - direct,
  unit: 'ms',
  baseline: direct,
  ratio: hop / direct,
  target,
});
