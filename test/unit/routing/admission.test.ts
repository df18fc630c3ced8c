import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { Admission } from '../../../node/routing/admission.ts';
import { AdmissionQueue } from '../../../node/routing/admission-queue.ts';
import { type ServiceMode, ServiceState } from '../../../node/routing/service-state.ts';
import fc from '../../support/fc.ts';
import { HeldEngine } from '../../support/held-engine.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { catalogEntry } from '../../support/swarm.ts';

const MODEL = 'm';

/** One request as its caller sees it. */
interface Asked {
  readonly id: string;
  readonly from: string | null;
  /** `running` from the engine's acceptance on, then `ok` or an error code. */
  outcome: string;
  error: MeshError | null;
  /** When `progress` came. */
  readonly progressAt: number[];
  abort(): void;
}

/** Lets everything happen that can without the clock. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function setUp(slots: number) {
  const clock = new ManualClock();
  const state = new ServiceState();
  const engine = new HeldEngine([catalogEntry(MODEL, { slots })]);
  const admission = new Admission({ engine, clock, state });
  const asked: Asked[] = [];
  let unsettled = 0;
  const run = async (one: Asked, model: string, signal: AbortSignal): Promise<void> => {
    const backend = one.from === null ? admission.local : admission.forPeer(one.from);
    const request = { requestId: one.id, kind: 'chat', model, body: new Uint8Array(), seed: 1 } as const;
    try {
      for await (const event of backend.infer(request, { signal })) {
        if (event.type === 'progress') one.progressAt.push(clock.now());
        if (event.type === 'accepted') one.outcome = 'running';
        if (event.type === 'end') one.outcome = 'ok';
      }
    } catch (error) {
      assert.ok(error instanceof MeshError, String(error));
      one.error = error;
      one.outcome = error.code;
    } finally {
      unsettled -= 1;
    }
  };
  const ask = (from: string | null, model = MODEL): Asked => {
    const aborting = new AbortController();
    const one: Asked = {
      id: String(asked.length),
      from,
      outcome: 'waiting',
      error: null,
      progressAt: [],
      abort: () => aborting.abort(new MeshError('client_closed', 'gone')),
    };
    asked.push(one);
    unsettled += 1;
    void run(one, model, aborting.signal);
    return one;
  };
  const finish = (index = 0): Promise<void> => {
    engine.running[index % engine.running.length]?.finish();
    return settled();
  };
  const waiting = (): Asked[] => asked.filter(({ outcome }) => outcome === 'waiting');
  return { clock, state, engine, admission, asked, ask, finish, waiting, unsettled: () => unsettled };
}

test('requests run as many at once as the model has slots, the others wait with progress each 500 ms', async () => {
  const { engine, ask, clock, finish, admission } = setUp(2);
  const [first, , third] = [ask(null), ask('A'), ask('B')];
  await settled();
  assert.deepEqual(engine.started, ['0', '1']);
  assert.deepEqual(admission.load(), { queued: 1 });
  for (let i = 0; i < 4; i++) {
    clock.advance(250);
    await settled();
  }
  assert.deepEqual(third.progressAt, [0, 500, 1000]);
  await finish();
  assert.equal(first.outcome, 'ok');
  assert.equal(third.outcome, 'running');
  assert.deepEqual(first.progressAt, []);
  assert.deepEqual(admission.load(), { queued: 0 });
});

test('requests of this node go before those of peers, and peers take turns', async () => {
  const { engine, ask, finish, asked } = setUp(1);
  for (const from of [null, 'A', 'A', 'A', 'B', 'B', null, 'C']) ask(from);
  await settled();
  // The queue holds four: B's first made A give up its last, the local one B's, C found nobody with more.
  while (engine.running.length > 0) await finish();
  const served = engine.started.map((id) => asked[Number(id)]?.from);
  assert.deepEqual(served.slice(0, 2), [null, null]);
  assert.deepEqual(new Set(served.slice(2, 5)), new Set(['A', 'B', 'C']));
});

test('a peer with a long line makes room for others, and everybody for this node', async () => {
  const { ask, waiting, asked } = setUp(1);
  ask('A');
  await settled();
  for (let i = 0; i < 4; i++) ask('A');
  await settled();
  ask('B');
  await settled();
  assert.deepEqual(
    waiting().map(({ from }) => from),
    ['A', 'A', 'A', 'B'],
  );
  assert.equal(asked[4]?.outcome, 'overloaded');
  ask(null);
  await settled();
  assert.deepEqual(
    waiting().map(({ from }) => from),
    ['A', 'A', 'B', null],
  );
  const fifth = ask('B');
  await settled();
  assert.equal(fifth.outcome, 'overloaded');
});

test('a full queue refuses at once and says when to come back, by what answers took so far', async () => {
  const { ask, clock, finish, waiting } = setUp(2);
  ask(null);
  await settled();
  clock.advance(4000);
  await finish();
  for (let i = 0; i < 10; i++) ask(null);
  await settled();
  assert.equal(waiting().length, 8);
  const refused = ask(null);
  await settled();
  assert.equal(refused.outcome, 'overloaded');
  assert.equal(refused.error?.facts.retryAfterMs, (4000 * 9) / 2);
});

test('a queue that is not measured yet refuses with a guess', async () => {
  const { ask } = setUp(1);
  const all = Array.from({ length: 6 }, () => ask(null));
  await settled();
  assert.equal(all.at(-1)?.outcome, 'overloaded');
  assert.equal(all.at(-1)?.error?.facts.retryAfterMs, 2000);
});

test('a predicted wait of more than 30 s is refused at once, though the queue has room', async () => {
  const { ask, clock, finish } = setUp(1);
  ask(null);
  await settled();
  clock.advance(16_000);
  await finish();
  const [, second, third] = [ask(null), ask(null), ask(null)];
  await settled();
  assert.equal(second.outcome, 'waiting');
  assert.equal(third.outcome, 'overloaded');
  assert.equal(third.error?.facts.retryAfterMs, 32_000);
});

test('loading a model does not count as the time of an answer', async () => {
  const { ask, clock, engine, finish, waiting } = setUp(1);
  engine.infer = async function* (request, { signal }) {
    if (engine.started.length === 0) {
      yield { type: 'progress', state: 'loading', fraction: null };
      clock.advance(100_000);
    }
    yield* HeldEngine.prototype.infer.call(engine, request, { signal });
  };
  ask(null);
  await settled();
  clock.advance(1000);
  await finish();
  for (let i = 0; i < 5; i++) ask(null);
  await settled();
  assert.equal(waiting().length, 4);
});

test('a wait that the prediction had too short ends after a minute', async () => {
  const { ask, clock } = setUp(1);
  ask(null);
  const second = ask(null);
  await settled();
  for (let i = 0; i < 120; i++) {
    assert.equal(second.outcome, 'waiting');
    clock.advance(500);
    await settled();
  }
  assert.equal(second.outcome, 'overloaded');
});

test('a request that is aborted leaves the queue at once, and one that is left frees its slot', async () => {
  const { ask, admission, engine, finish } = setUp(1);
  const [first, second, third] = [ask(null), ask('A'), ask('B')];
  await settled();
  second.abort();
  await settled();
  assert.equal(second.outcome, 'client_closed');
  assert.deepEqual(admission.load(), { queued: 1 });
  first.abort();
  await settled();
  assert.equal(first.outcome, 'client_closed');
  assert.equal(third.outcome, 'running');
  await finish();
  assert.equal(engine.started.length, 2);
  assert.equal(third.outcome, 'ok');
});

test('a request whose turn comes while its caller is busy runs as soon as the caller looks again', async () => {
  const { ask, admission, engine, finish } = setUp(1);
  ask(null);
  await settled();
  const request = { requestId: 'slow', kind: 'chat', model: MODEL, body: new Uint8Array(), seed: 1 } as const;
  const events = admission.forPeer('A').infer(request, { signal: new AbortController().signal });
  const iterator = events[Symbol.asyncIterator]();
  assert.equal((await iterator.next()).value?.type, 'progress');
  await finish();
  assert.deepEqual(engine.started, ['0']);
  // The clock stands still: no tick brings it on.
  assert.equal((await iterator.next()).value?.type, 'accepted');
  await iterator.return?.();
});

test('a paused node takes nothing of peers and goes on for its own clients', async () => {
  const { ask, state, finish } = setUp(1);
  const running = ask('A');
  const [own, peer] = [ask(null), ask('A')];
  await settled();
  state.set('paused');
  await settled();
  assert.equal(peer.outcome, 'draining');
  assert.equal(own.outcome, 'waiting');
  const late = ask('B');
  await settled();
  assert.equal(late.outcome, 'draining');
  assert.ok((late.error?.facts.retryAfterMs ?? 0) > 0);
  await finish();
  assert.equal(running.outcome, 'ok');
  assert.equal(own.outcome, 'running');
  state.set('open');
  const again = ask('B');
  await settled();
  assert.equal(again.outcome, 'waiting');
});

test('a draining node finishes what runs, sends those that wait away and takes nothing new until it resumes', async () => {
  const { ask, state, finish } = setUp(1);
  const [running, own, peer] = [ask(null), ask(null), ask('A')];
  await settled();
  state.set('draining');
  const late = ask(null);
  await settled();
  assert.deepEqual([own.outcome, peer.outcome, late.outcome], ['draining', 'draining', 'draining']);
  await finish();
  assert.equal(running.outcome, 'ok');
  state.set('open');
  const again = ask(null);
  await settled();
  assert.equal(again.outcome, 'running');
});

test('a node that shuts down is not opened again', () => {
  const state = new ServiceState();
  const heard: string[] = [];
  state.onChange((mode) => heard.push(mode));
  state.set('paused');
  state.set('paused');
  state.close();
  state.close();
  assert.throws(() => state.set('open'), { code: 'draining' });
  assert.equal(state.mode, 'draining');
  assert.deepEqual(heard, ['paused', 'draining']);
});

test('D-8 a model that is not here is model_not_loaded, and more slots let in who waits', async () => {
  const { ask, engine } = setUp(1);
  const unknown = ask('A', 'other');
  const [, second] = [ask(null), ask(null)];
  await settled();
  assert.equal(unknown.outcome, 'model_not_loaded');
  assert.equal(second.outcome, 'waiting');
  engine.entries = [catalogEntry(MODEL, { slots: 2 })];
  engine.changed();
  await settled();
  assert.equal(second.outcome, 'running');
});

const someone = fc.constantFrom(null, null, 'A', 'B', 'C');
const mode = fc.constantFrom<ServiceMode>('open', 'open', 'paused', 'draining');
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('ask' as const), from: someone }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('finish' as const), index: fc.nat(7) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('abort' as const), index: fc.nat(50) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.nat(6000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('mode' as const), mode }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
type SetUp = ReturnType<typeof setUp>;

async function take(it: SetUp, one: Step): Promise<void> {
  if (one.do === 'ask') it.ask(one.from);
  if (one.do === 'finish') await it.finish(one.index);
  if (one.do === 'abort') it.asked[one.index % it.asked.length]?.abort();
  if (one.do === 'advance') it.clock.advance(one.ms);
  if (one.do === 'mode') it.state.set(one.mode);
  await settled();
}

/** `waited`, `started`: before the last step. */
function checkInvariants(it: SetUp, slots: number, waited: readonly Asked[], started: number): void {
  const waiting = it.waiting().length;
  assert.ok(it.engine.running.length <= slots, 'more at once than slots');
  assert.ok(waiting <= 4 * slots, 'more wait than the queue holds');
  assert.equal(it.admission.load().queued, waiting);
  assert.ok(waiting === 0 || it.engine.running.length === slots, 'somebody waits beside a free slot');
  const ownWaits = waited.some(({ from, outcome }) => from === null && outcome === 'waiting');
  const began = it.engine.started.slice(started).map((id) => it.asked[Number(id)]?.from);
  assert.ok(!ownWaits || began.every((from) => from === null), 'a peer overtook an own request');
  for (const { progressAt } of it.asked) {
    const tooOften = progressAt.some((at, index) => at - (progressAt[index - 1] ?? Number.NEGATIVE_INFINITY) < 500);
    assert.ok(!tooOften, 'progress more often than each 500 ms');
  }
}

test('whatever comes: never more than the slots at once, never a peer before an own request, and everybody settles', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.array(step, { maxLength: 60 }), async (slots, steps) => {
      const it = setUp(slots);
      for (const one of steps) {
        const [started, waited] = [it.engine.started.length, it.waiting()];
        await take(it, one);
        checkInvariants(it, slots, waited, started);
      }
      while (it.engine.running.length > 0) await it.finish();
      await settled();
      assert.equal(it.unsettled(), 0);
      // No slot was lost on the way.
      it.state.set('open');
      for (let i = 0; i < slots; i++) it.ask('Z');
      await settled();
      assert.equal(it.engine.running.length, slots);
    }),
    { numRuns: 150 },
  );
});

/** For each peer that waits: who was served since it began to, or since its last turn. */
class Turns {
  readonly #since = new Map<string, string[]>();
  readonly #lines = new Map<string, number>();

  arrived(peer: string): void {
    this.#lines.set(peer, (this.#lines.get(peer) ?? 0) + 1);
    if (!this.#since.has(peer)) this.#since.set(peer, []);
  }

  served(peer: string): void {
    for (const others of this.#since.values()) others.push(peer);
    const left = (this.#lines.get(peer) ?? 0) - 1;
    this.#lines.set(peer, left);
    if (left === 0) this.#since.delete(peer);
    else this.#since.set(peer, []);
  }

  get nobodyWaits(): boolean {
    return this.#since.size === 0;
  }

  get fair(): boolean {
    return [...this.#since.values()].every((others) => new Set(others).size === others.length);
  }
}

test('a peer that waits sees each other peer served at most once before its turn, whoever comes', () => {
  const move = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom('A', 'B', 'C', 'D') },
    { weight: 2, arbitrary: fc.constant(null) },
  );
  fc.assert(
    fc.property(fc.array(move, { maxLength: 200 }), (moves) => {
      const queue = new AdmissionQueue<{ from: string }>();
      const turns = new Turns();
      for (const from of moves) {
        if (from === null) {
          const served = queue.take();
          if (served === null) assert.ok(turns.nobodyWaits);
          else turns.served(served.from);
        } else {
          const place = queue.place(from);
          assert.ok(place >= 1 && place <= queue.size + 1);
          queue.add({ from });
          turns.arrived(from);
        }
        assert.ok(turns.fair);
      }
    }),
  );
});
