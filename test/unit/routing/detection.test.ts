/** When an attempt on a peer is given up: at its death, at a hung engine; not because it is slow, nor because we were. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerBackend } from '../../../node/backends/peer.ts';
import { type Clock, deadline } from '../../../node/common/clock.ts';
import { MeshError } from '../../../node/common/errors.ts';
import type { PeerStreams } from '../../../node/network/peer-streams.ts';
import { PeerTable } from '../../../node/network/peer-table.ts';
import { Watchdog } from '../../../protocols/watchdog.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { askFor } from '../../support/twin-mesh.ts';

const PEER = '12D3KooWPeer';
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** An attempt on a peer that never says a word; `ended`: with which code it was given up, null while it waits. */
async function waitingAttempt() {
  const table = new PeerTable();
  table.hello(PEER, { version: '', name: 'box', epoch: 1, engineBuild: '', peerHints: [] });
  table.snapshot(PEER, []);
  const never = new Promise<never>(() => {});
  const streams = { acquire: () => never } as unknown as PeerStreams;
  const backend = new PeerBackend({ streams, peers: table, clock: new ManualClock() }, PEER);
  let ended: string | null = null;
  const client = new AbortController();
  const running = (async () => {
    try {
      for await (const _ of backend.infer(askFor(3), { signal: client.signal })) assert.fail('nothing comes');
    } catch (error) {
      ended = error instanceof MeshError ? error.code : String(error);
    }
  })();
  await turn();
  const settle = async (): Promise<string | null> => {
    await turn();
    await turn();
    return ended;
  };
  const stop = async (): Promise<void> => {
    client.abort();
    await running;
  };
  return { table, settle, stop };
}

const load = (engineAgeMs: number) => ({ inFlight: 1, queued: 0, engineAgeMs, draining: false });

test('a peer that is declared dead ends what is asked of it, one that said goodbye does not', async () => {
  const lost = await waitingAttempt();
  lost.table.lost(PEER);
  assert.equal(await lost.settle(), 'peer_unreachable');
  const leaving = await waitingAttempt();
  leaving.table.goodbye(PEER);
  assert.equal(await leaving.settle(), null);
  await leaving.stop();
});

test('a peer that is suspect, busy or slow is waited for; one whose engine hangs past every honest step is not', async () => {
  const { table, settle } = await waitingAttempt();
  table.suspect(PEER);
  table.alive(PEER);
  for (const engineAgeMs of [0, 1000, 30_000, 180_000]) table.load(PEER, load(engineAgeMs));
  assert.equal(await settle(), null);
  table.load(PEER, load(240_000));
  assert.equal(await settle(), 'wedged');
});

test("another peer's death is nobody else's", async () => {
  const { table, settle, stop } = await waitingAttempt();
  table.hello('other', { version: '', name: 'other', epoch: 1, engineBuild: '', peerHints: [] });
  table.snapshot('other', []);
  table.lost('other');
  assert.equal(await settle(), null);
  await stop();
});

/** Timers that fire when they are told to, however late. */
class PausedClock implements Clock {
  time = 0;
  #due: { readonly at: number; readonly callback: () => void }[] = [];

  now(): number {
    return this.time;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { at: this.time + delayMs, callback };
    this.#due.push(timer);
    return () => {
      this.#due = this.#due.filter((one) => one !== timer);
    };
  }

  every(): () => void {
    assert.fail('not used');
  }

  /** The process stood still until `time`; now all timers that are due fire before anything else. */
  resumeAt(time: number): void {
    this.time = time;
    const due = this.#due.filter(({ at }) => at <= time);
    this.#due = this.#due.filter(({ at }) => at > time);
    for (const { callback } of due) callback();
  }
}

test('after a pause of our own a peer has another second to be heard, once', () => {
  const clock = new PausedClock();
  const watchdog = new Watchdog(clock);
  const bound = deadline(clock, 2000, () => new Error('late'));
  watchdog.arm(2000, () => new Error('late'));
  clock.resumeAt(9000);
  assert.deepEqual([watchdog.signal.aborted, bound.signal.aborted], [false, false]);
  clock.resumeAt(9999);
  assert.deepEqual([watchdog.signal.aborted, bound.signal.aborted], [false, false]);
  clock.resumeAt(15_000);
  assert.deepEqual([watchdog.signal.aborted, bound.signal.aborted], [true, true], 'a second pause is no excuse');
});

test('a frame that is read in that second is in time, and a silence without a pause is over at its bound', () => {
  const clock = new PausedClock();
  const watchdog = new Watchdog(clock);
  watchdog.arm(2000, () => new Error('late'));
  clock.resumeAt(9000);
  watchdog.arm(2000, () => new Error('late'));
  clock.resumeAt(10_001);
  assert.equal(watchdog.signal.aborted, false);
  clock.resumeAt(11_001);
  assert.equal(watchdog.signal.aborted, true);
});
