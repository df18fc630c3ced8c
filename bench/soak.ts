/**
 * `npm run soak [-- --minutes N --seed S]`: a mesh of four nodes under steady load while one of them after the other is
 * struck, by a schedule that the seed decides. Prints what became of every answer, and how memory and handles went; exits
 * with 1 when a promise was broken. Linux, root.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { FaultMesh } from '../test/support/fault-mesh.ts';
import { FaultQuestions } from '../test/support/fault-questions.ts';
import { lanSwitchUnavailable, SwitchedLan } from '../test/support/lan-switch.ts';
import type { Vitals } from '../test/support/vitals-main.ts';
import { machineLine } from './result.ts';
import type { Slope } from './slope.ts';
import { nextStrike, type Strike, seededRandom } from './soak-faults.ts';
import { SoakLedger } from './soak-ledger.ts';
import { SoakVitals, type VitalTrend } from './soak-vitals.ts';

const REAL = [0, 1];
const SCRIPTED = [2, 3];
const ALL = [...REAL, ...SCRIPTED];
/** These are struck, but never end. */
const LASTING = [0, 2];
const MORTAL = [1, 3];

const STRIKE_EVERY_MS = 10_000;
const CLIENTS = 6;
/** Of a client between an answer and its next question. */
const PAUSE_MS = 300;
/** Of the clients, those who hang up. */
const LEAVING = 0.05;
const REPORT_EVERY_MS = 30_000;
/**
 * Of crashes of one engine that are counted together, how many there may be: one more would be put in quarantine. A node
 * counts five minutes from when it noticed, which is seconds after the strike.
 */
const QUARANTINE_MS = 330_000;
const CRASHES = 2;
/** The same for crashes that make an engine rest longer each time: after this many it rests for eight seconds. */
const RESTS_MS = 1_800_000;
const RESTS = 4;
/** For an engine that was struck to answer again. */
const RECOVERY_MS = 60_000;
/** Handles and descriptors that may come and go: connections of peers, the client's sockets. */
const HANDLE_SLACK = 8;
const MOST_MIB_PER_HOUR = 1;
/** In the first hours compiled code and kept records of requests still grow: only a leak beyond these can be told. */
const MOST_WHILE_WARM = 10;
const LONG_MINUTES = 120;
/** Of the run, before the samples that count; an hour at most. */
const WARM_UP = 2 / 3;
const MOST_WARM_UP_MINUTES = 60;
/** Eight minutes of samples: a trend of fewer is chance. */
const ENOUGH_SAMPLES = 16;
const MIB = 2 ** 20;
const PRELUDE_MS = 20_000;
/** For what nodes close a little later. */
const LINGER_MS = 15_000;

const { values } = parseArgs({ options: { minutes: { type: 'string' }, seed: { type: 'string' } } });
const minutes = Number(values.minutes ?? 30);
const seed = Number(values.seed ?? 1);
const unavailable = lanSwitchUnavailable();
if (unavailable !== null || !(minutes > 0) || !Number.isInteger(seed)) {
  console.error(unavailable ?? 'usage: npm run soak -- --minutes N --seed S');
  process.exit(2);
}

const lines: string[] = [];
const say = (line: string): void => {
  lines.push(line);
  console.log(line);
};

const preload = pathToFileURL(path.resolve(import.meta.dirname, '../test/support/vitals-main.ts'));
const mesh = new FaultMesh(
  await SwitchedLan.open(ALL.length, seed),
  ALL.map((machine) =>
    REAL.includes(machine)
      ? { engine: 'real', models: ['demo'] }
      : { engine: 'scripted', models: ['scripted'], tokenDelayMs: 20 },
  ),
  { NODE_OPTIONS: `--import=${preload.href}` },
);
const questions = new FaultQuestions();
const ledger = new SoakLedger(questions, (machine, model) => REAL.includes(machine) === (model === 'demo'));
const vitals = new SoakVitals(mesh, LASTING);
/** When engine children were made to crash, by machine. */
const crashes = new Map<number, number[]>(REAL.map((machine) => [machine, []]));
const troubles: string[] = [];
let strikes = 0;

try {
  await mesh.startAll();
  await questions.learn(mesh, REAL);
  say(`soak of ${minutes} minutes with seed ${seed}, ${new Date().toISOString().slice(0, 10)}, ${machineLine()}`);
  // A little of everything first: what is made once is no leak.
  await loaded(() => sleep(PRELUDE_MS));
  await rest();
  await loaded(() => strikesUntil(performance.now() + minutes * 60_000));
  await rest();
  report();
} finally {
  await mesh.close();
}
const folder = path.join(import.meta.dirname, 'results');
mkdirSync(folder, { recursive: true });
writeFileSync(path.join(folder, `${new Date().toISOString().slice(0, 10)}-soak.txt`), `${lines.join('\n')}\n`);
process.exitCode = troubles.length === 0 ? 0 : 1;

async function loaded(during: () => Promise<void>): Promise<void> {
  const over = new AbortController();
  const goesOn = (): boolean => !over.signal.aborted;
  const loads = [ask(goesOn), progress(goesOn)];
  try {
    await during();
  } finally {
    over.abort();
    await Promise.all(loads);
  }
}

/** Everything is answered, every slot free, and what lingers has gone; then a sample. */
async function rest(): Promise<void> {
  await ledger.settled();
  await mesh.quiet().catch((error: Error) => troubles.push(error.message));
  await mesh.hangUp();
  await sleep(LINGER_MS);
  await vitals.take();
}

async function strikesUntil(endsAtMs: number): Promise<void> {
  const random = seededRandom(seed);
  while (performance.now() < endsAtMs) {
    const nextAtMs = performance.now() + STRIKE_EVERY_MS;
    await strike(nextStrike(random, { all: ALL, mortal: MORTAL, crashable: crashable() }));
    await sleep(Math.max(0, nextAtMs - performance.now()));
  }
}

async function strike({ fault, victim }: Strike): Promise<void> {
  strikes += 1;
  const settle = ledger.strikes(victim, fault);
  if (fault.child) crashes.get(victim)?.push(performance.now());
  if (fault.ends) crashes.set(victim, []);
  await fault.strike(mesh, victim);
  // An engine that rests after a crash is nobody's twin: the next strike would leave the model without any.
  if (fault.child) await answersAgain(victim).catch((error: Error) => troubles.push(error.message));
  await mesh.whole().catch((error: Error) => troubles.push(`after ${fault.name} of ${victim}: ${error.message}`));
  settle();
}

/** Asks the engine of a machine itself, outside the ledger, until it gives an answer. */
async function answersAgain(machine: number): Promise<void> {
  const until = performance.now() + RECOVERY_MS;
  while (performance.now() < until) {
    const { error, broken } = await mesh.ask(questions.one('demo', 0, { local: true }), machine).receipt;
    if (error === null && broken === null) return;
    await sleep(PAUSE_MS);
  }
  throw new Error(`the engine of machine ${machine} did not come back`);
}

function crashable(): number[] {
  const lately = (machine: number, withinMs: number): number =>
    (crashes.get(machine) ?? []).filter((at) => at > performance.now() - withinMs).length;
  return REAL.filter((machine) => lately(machine, QUARANTINE_MS) < CRASHES && lately(machine, RESTS_MS) < RESTS);
}

/** Steady load that waits for its answers, so that a slow machine is not a full one. */
async function ask(goesOn: () => boolean): Promise<void> {
  await Promise.all(Array.from({ length: CLIENTS }, (_, client) => oneClient(client, goesOn)));
}

/** One question after the other, each on a machine of its own and of either model. */
async function oneClient(client: number, goesOn: () => boolean): Promise<void> {
  const random = seededRandom(seed + 1 + client);
  for (let turn = client; goesOn(); turn++) {
    const model = random() < 0.5 ? 'demo' : 'scripted';
    const at = ALL[Math.floor(random() * ALL.length)] ?? 0;
    const leaveAfter = random() < LEAVING ? { leaveAfter: 1 + Math.floor(random() * 40) } : {};
    const asked = mesh.ask({ ...questions.one(model, turn), ...leaveAfter }, at);
    await ledger.asked(asked, at, (requestId) => mesh.explanation(requestId, at));
    await sleep(PAUSE_MS);
  }
}

async function progress(goesOn: () => boolean): Promise<void> {
  const begunAtMs = performance.now();
  for (let reports = 1; ; reports++) {
    while (goesOn() && performance.now() < begunAtMs + reports * REPORT_EVERY_MS) await sleep(200);
    if (!goesOn()) return;
    await vitals.take();
    const elapsed = `${String(Math.round((performance.now() - begunAtMs) / 1000)).padStart(5)} s`;
    say(`${elapsed}, ${strikes} faults: ${ledger.line()}; ${vitals.line()}`);
    for (const line of ledger.news()) say(`broken: ${line}`);
  }
}

function report(): void {
  say(`\nfaults: ${ledger.struck()}`);
  say(`answers: ${ledger.line()}`);
  for (const slow of ledger.slow()) say(`slow: ${slow}`);
  const broken = ledger.violations().length;
  if (broken > 0) troubles.push(`${broken} answers, named above`);
  troubles.push(...ledger.news(), ...mesh.unowned());
  for (const trend of vitals.trends(Math.min(minutes * WARM_UP, MOST_WARM_UP_MINUTES) * 60_000)) {
    say(trendLine(trend));
    troubles.push(...leaks(trend));
  }
  for (const trouble of troubles) say(`broken: ${trouble}`);
  say(`${troubles.length === 0 ? 'every promise was kept' : `${troubles.length} promises were broken`}, seed ${seed}`);
}

function trendLine({ machine, live, heap, native, samples, before, after }: VitalTrend): string {
  const slope = ({ value, low, high }: Slope): string =>
    `${value.toFixed(1)} MiB/h (${low.toFixed(1)} to ${high.toFixed(1)})`;
  const trends = `live memory ${slope(live)}, of it heap ${slope(heap)} and native ${slope(native)}: ${verdictOn(live)}`;
  const memory = samples < ENOUGH_SAMPLES ? 'too short for a trend' : trends;
  const levels = [before, after].map((sample) => `${mib(sample.held)} MiB, ${mib(sample.rss)} of them live`);
  const handles = `handles ${held(before)} to ${held(after)}${kindsOf(before, after)}`;
  const descriptors = `descriptors ${before.descriptors} to ${after.descriptors}`;
  return `machine ${machine}: from ${levels.join(' to ')}; ${memory}; ${handles}, ${descriptors}`;
}

function verdictOn({ low, high }: Slope): string {
  const bound = leakBound();
  if (low > bound) return `a leak of more than ${bound} MiB/h`;
  if (high <= MOST_MIB_PER_HOUR) return `at most ${MOST_MIB_PER_HOUR} MiB/h, as promised`;
  const shown = `no leak of more than ${bound} MiB/h`;
  return bound > MOST_MIB_PER_HOUR ? `${shown}; ${MOST_MIB_PER_HOUR} takes ${LONG_MINUTES} minutes to show` : shown;
}

/** MiB/h beyond which memory that grows is a leak. */
function leakBound(): number {
  return minutes >= LONG_MINUTES ? MOST_MIB_PER_HOUR : MOST_WHILE_WARM;
}

function mib(bytes: number): number {
  return Math.round(bytes / MIB);
}

function held({ resources }: Vitals): number {
  return Object.values(resources).reduce((sum, count) => sum + count, 0);
}

/** ` (Timeout 3 to 5)`: the kinds whose number changed. */
function kindsOf(before: Vitals, after: Vitals): string {
  const changed = Object.keys({ ...before.resources, ...after.resources })
    .map((kind) => ({ kind, from: before.resources[kind] ?? 0, to: after.resources[kind] ?? 0 }))
    .filter(({ from, to }) => from !== to)
    .map(({ kind, from, to }) => `${kind} ${from} to ${to}`);
  return changed.length === 0 ? '' : ` (${changed.join(', ')})`;
}

/** A slope is held against a node only when it is beyond what chance explains. */
function leaks({ machine, live, heap, samples, before, after }: VitalTrend): string[] {
  const found: string[] = [];
  const grows = ({ low }: Slope): boolean => samples >= ENOUGH_SAMPLES && low > leakBound();
  if (grows(heap)) found.push(`the heap of machine ${machine} grows`);
  if (grows(live)) found.push(`the memory of machine ${machine} grows`);
  if (held(after) > held(before) + HANDLE_SLACK) found.push(`handles of machine ${machine} are left open`);
  if (after.descriptors > before.descriptors + HANDLE_SLACK)
    found.push(`descriptors of machine ${machine} are left open`);
  return found;
}
