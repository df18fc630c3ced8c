/**
 * FailoverBench's sixteen scenarios: a provider that misbehaves, the facade in front of it, and a client that expects the
 * whole answer. Verdicts as there: pass = the whole answer and right conduct; partial = the answer, but conduct that could
 * be better; safe = one clean error in time; fail = anything else.
 *
 * The four long ones run five times as fast: the provider's waits, the product's own bounds and the criteria are all divided
 * by SPEED_UP. `FAILOVER_BENCH_SPEED_UP=1` runs them in real time (two minutes).
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Calls } from '../support/misbehaving-calls.ts';
import { type Rig, type RigOptions, type Seen, startRig } from '../support/misbehaving-rig.ts';
import { PROMPT_TOKENS, WHOLE_ANSWER } from '../support/misbehaving-server.ts';

const SPEED_UP = Number(process.env['FAILOVER_BENCH_SPEED_UP'] ?? 5);

type Verdict = 'pass' | 'partial' | 'safe' | 'fail';

/** One condition of right conduct: what it is, and whether it held. */
type Check = readonly [what: string, held: boolean];

interface Scenario {
  readonly id: string;
  readonly what: string;
  /** Default: real time, one server, `ok` as the substitute. */
  readonly rig?: RigOptions;
  readonly fallback?: string | null;
  readonly stream?: boolean;
  /** A clean error is the right answer. */
  readonly refusal?: (seen: Seen) => readonly Check[];
  readonly conduct: (seen: Seen, calls: Calls) => readonly Check[];
  /** Instead of one question. */
  readonly play?: (rig: Rig, model: string) => Promise<readonly Check[]>;
}

const FAST: RigOptions = { speedUp: SPEED_UP };
/** `tookMs` as it would have been. */
const real = (milliseconds: number): number => milliseconds * SPEED_UP;

const SCENARIOS: readonly Scenario[] = [
  {
    id: 'S01',
    what: '429 with Retry-After 2 s, once',
    conduct: (_, calls) => [
      ['waits 1.8 s on the same route or asks another', !(calls.pauseMs < 1800)],
      ['at most 2 attempts in 1.5 s', calls.within(1500) <= 2],
    ],
  },
  {
    id: 'S02',
    what: '429 always, no Retry-After',
    conduct: (seen, calls) => [
      ['at most 4 attempts in 3 s', calls.within(3000) <= 4],
      ['at most 6 attempts', calls.all.length <= 6],
      ['backs off', !(calls.pauseMs < 500)],
      ['names the substitute', seen.model === 'ok'],
    ],
  },
  {
    id: 'S03',
    what: '500 once',
    conduct: (seen, calls) => [
      ['one retry on the same route', calls.primary.length === 2 && calls.fallback.length === 0],
      ['names the model', seen.model === 's03'],
    ],
  },
  {
    id: 'S04',
    what: '503 always',
    conduct: (seen, calls) => [
      ['at most 3 tries of the primary', calls.primary.length <= 3],
      ['names the substitute', seen.model === 'ok'],
    ],
  },
  {
    id: 'S05',
    what: 'reset before headers, once',
    conduct: (_, calls) => [['at most 2 attempts', calls.all.length <= 2]],
  },
  {
    id: 'S06',
    what: 'accepted, never answers',
    rig: FAST,
    conduct: (seen, calls) => [
      ['under 100 s', real(seen.tookMs) < 100_000],
      ['does not ask the silent route again', calls.primary.length === 1],
    ],
  },
  {
    id: 'S07',
    what: 'headers at once, first token after 20 s',
    rig: FAST,
    conduct: (seen, calls) => [
      ['under 30 s', real(seen.tookMs) < 30_000],
      ['is not asked twice', calls.primary.length === 1],
    ],
  },
  {
    id: 'S07',
    what: 'the same, with a limit of 10 s for the first token',
    rig: { ...FAST, silentRouteMs: 10_000 },
    conduct: (seen, calls) => [
      ['under 15 s', real(seen.tookMs) < 15_000],
      ['is not asked twice', calls.primary.length === 1],
    ],
  },
  { id: 'S08', what: 'dies after 40 of 60 tokens', conduct: () => [] },
  { id: 'S08', what: 'the same, where servers continue', rig: { tellsPrefill: true }, conduct: () => [] },
  {
    id: 'S09',
    what: 'silent after 20 tokens for 30 s, then closes',
    rig: FAST,
    conduct: (seen) => [['under 45 s', real(seen.tookMs) < 45_000]],
  },
  { id: 'S10', what: 'the tenth event is no JSON', conduct: () => [] },
  {
    id: 'S11',
    what: 'whole, without [DONE], connection left open',
    conduct: (seen, calls) => [
      ['under 8 s', seen.tookMs < 8000],
      ['is asked once', calls.all.length === 1],
    ],
  },
  {
    id: 'S12',
    what: '400 context_length_exceeded',
    conduct: (_, calls) => [['the same model is not asked again', calls.primary.length === 1]],
  },
  {
    id: 'S13',
    what: '400 content_policy_violation',
    refusal: ({ status, error }) => [
      ['status 400', status === 400],
      ['the reason is passed on', /content policy.*content_policy_violation/.test(error?.message ?? '')],
    ],
    conduct: (_, calls) => [['nobody else is asked', calls.all.length === 1]],
  },
  {
    id: 'S14',
    what: 'as S08, and the fallback refuses prefill',
    rig: { tellsPrefill: true },
    fallback: 'no-prefill',
    conduct: (seen) => [['never the refusal of prefill', !/prefill/.test(seen.error?.message ?? '')]],
  },
  { id: 'S15', what: '503 for 60 s; 20 requests, one each 4 s', rig: FAST, conduct: () => [], play: playRecovery },
  {
    id: 'S15',
    what: 'the same, the fallback on another server',
    rig: { ...FAST, servers: 2 },
    fallback: 'ok',
    conduct: () => [],
    play: playRecovery,
  },
  {
    id: 'S16',
    what: '503 always: which model, which usage',
    conduct: (seen, calls) => [
      ['names the substitute', seen.model === 'ok'],
      ['one completion at the provider', calls.all.filter(({ completed }) => completed).length === 1],
      ['usage as the provider counts', seen.usage?.prompt_tokens === PROMPT_TOKENS],
    ],
  },
  {
    id: 'S03',
    what: '500 once, not streamed',
    stream: false,
    conduct: (_, calls) => [['same route', calls.fallback.length === 0]],
  },
  {
    id: 'S16',
    what: '503 always, not streamed',
    stream: false,
    conduct: (seen) => [['names the substitute', seen.model === 'ok']],
  },
];

/** A question each 4 s for 80 s: all are answered, and the primary answers again within 30 s of its recovery. */
async function playRecovery(rig: Rig, model: string): Promise<readonly Check[]> {
  const [server] = rig.servers;
  assert.ok(server);
  const answers: Promise<Seen>[] = [];
  let lastByFallbackMs = 0;
  for (let i = 0; i < 20; i += 1) {
    const atMs = performance.now();
    const answer = rig.ask(model);
    answers.push(answer);
    void answer.then((seen) => {
      if (seen.model !== model) lastByFallbackMs = Math.max(lastByFallbackMs, atMs);
    });
    await new Promise((resolve) => setTimeout(resolve, 4000 / SPEED_UP));
  }
  const seen = await Promise.all(answers);
  return [
    ['all 20 are answered whole', seen.every(isWhole)],
    ['the primary answers at the end', seen.at(-1)?.model === model],
    ['back within 30 s of the recovery', real(lastByFallbackMs - server.recoversAtMs) < 30_000],
  ];
}

const isWhole = ({ status, text, finish, done, error, usage }: Seen): boolean =>
  status === 200 &&
  text === WHOLE_ANSWER &&
  finish === 'stop' &&
  done &&
  error === null &&
  (usage?.completion_tokens ?? 0) > 0;

/** Afterwards as before; and of all attempts only those that ended one of the `whole` answers count as completions. */
async function aftermath(rig: Rig, whole: number): Promise<readonly Check[]> {
  const after = await rig.ask('ok');
  const body = await rig.metrics.registry.metrics();
  const completions = Number(/^meshnode_attempts_total\{.*outcome="ok".*\} (\d+)$/m.exec(body)?.[1] ?? 0);
  return [
    ['healthy afterwards', isWhole(after)],
    ['only whole answers count as completions', completions === whole + 1],
  ];
}

async function judge(scenario: Scenario): Promise<{ verdict: Verdict; why: string; tookMs: number; attempts: number }> {
  const { id, rig: options, fallback = 'ok', stream = true, conduct, refusal, play } = scenario;
  const model = id.toLowerCase();
  const aliases = fallback === null ? {} : { [model]: [model, fallback] };
  const rig = await startRig({ ...options, aliases });
  const startedAt = performance.now();
  try {
    if (play !== undefined) {
      const broken = [...(await play(rig, model)), ...(await aftermath(rig, 20))].filter(([, held]) => !held);
      const attempts = new Calls(rig.servers, model).all.length;
      return {
        verdict: broken.length === 0 ? 'pass' : 'fail',
        why: text(broken),
        tookMs: performance.now() - startedAt,
        attempts,
      };
    }
    const seen = await rig.ask(model, { stream });
    const calls = new Calls(rig.servers, model);
    const checks = [
      ...conduct(seen, calls),
      ...(refusal?.(seen) ?? []),
      ...(await aftermath(rig, isWhole(seen) ? 1 : 0)),
    ];
    const broken = checks.filter(([, held]) => !held);
    const isClean = seen.error !== null && seen.error.message !== '' && !seen.done && seen.finish === null;
    const isAnswered = refusal === undefined ? isWhole(seen) : isClean;
    const verdict = isAnswered ? (broken.length === 0 ? 'pass' : 'partial') : isClean ? 'safe' : 'fail';
    const said =
      seen.error === null
        ? `${seen.text.length} characters, finish ${seen.finish}`
        : `${seen.error.code}: ${seen.error.message}`;
    const why = verdict === 'pass' ? '' : `${text(broken)} (${seen.status}, ${said})`;
    return { verdict, why, tookMs: seen.tookMs, attempts: calls.all.length };
  } finally {
    await rig.stop();
  }
}

const text = (broken: readonly Check[]): string => broken.map(([what]) => `not: ${what}`).join('; ');

const rows: string[] = [];

describe('FailoverBench', { concurrency: true }, () => {
  for (const scenario of SCENARIOS) {
    test(`${scenario.id} ${scenario.what}`, async () => {
      const { verdict, why, tookMs, attempts } = await judge(scenario);
      const seconds = (tookMs / 1000).toFixed(1);
      rows.push(
        `${scenario.id} ${verdict.padEnd(7)} ${seconds.padStart(5)} s ${String(attempts).padStart(3)} asked  ${scenario.what}`,
      );
      assert.equal(verdict, 'pass', why);
    });
  }
  after(() => console.log(['', ...rows.toSorted(), ''].join('\n')));
});
