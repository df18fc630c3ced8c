/** Nobody can be asked at this moment: who is waited for, for how long, and who is asked again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PlayedScript, scriptedMesh } from '../../support/scripted-mesh.ts';

const OK: PlayedScript = { words: ['ok'] };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A running request; `after`: moves the clock in small steps and says what became of it by then. */
function watch(mesh: ReturnType<typeof scriptedMesh>, more: Parameters<typeof mesh.run>[1] = {}) {
  const client = new AbortController();
  let end: Awaited<ReturnType<typeof mesh.run>> | null = null;
  const running = mesh.run({ signal: client.signal }, more).then((ended) => {
    end = ended;
  });
  const after = async (ms: number): Promise<{ text: string; code: string | null } | null> => {
    for (let passed = 0; passed < ms && end === null; passed += 50) {
      await turn();
      mesh.clock.advance(50);
      await turn();
    }
    return end === null ? null : { text: end.text, code: end.code };
  };
  return { client, running, after };
}

/** The index of the mesh says that a peer with the model was lost just now. */
function awaiting(mesh: ReturnType<typeof scriptedMesh>): { isAwaited: boolean } {
  const said = { isAwaited: true };
  mesh.awaits(() => said.isAwaited);
  return said;
}

test('a peer that was lost just now is waited for, before and after a failure', async () => {
  for (const first of [undefined, { ending: 'peer_unreachable' } as const]) {
    const scripts: Record<string, PlayedScript> = first === undefined ? {} : { a: first };
    const mesh = scriptedMesh(scripts);
    awaiting(mesh);
    const { after } = watch(mesh);
    assert.equal(await after(1000), null);
    scripts['b'] = OK;
    assert.deepEqual(await after(200), { text: 'ok', code: null });
  }
});

test('the wait is over when nobody is awaited any more, and after five seconds at most', async () => {
  const mesh = scriptedMesh({});
  const said = awaiting(mesh);
  const { after } = watch(mesh);
  assert.equal(await after(2000), null);
  said.isAwaited = false;
  assert.equal((await after(200))?.code, 'model_not_available');
  const long = scriptedMesh({ a: { ending: 'peer_unreachable' } });
  awaiting(long);
  const second = watch(long);
  assert.equal(await second.after(4500), null);
  assert.equal((await second.after(600))?.code, 'peer_unreachable');
});

test('a peer that failed is asked again once it was gone and came back, and not before', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'peer_unreachable' } };
  const mesh = scriptedMesh(scripts);
  awaiting(mesh);
  const { after } = watch(mesh);
  assert.equal(await after(1000), null);
  assert.deepEqual(mesh.dials(), ['a']);
  delete scripts['a'];
  assert.equal(await after(1000), null);
  scripts['a'] = OK;
  assert.deepEqual(await after(300), { text: 'ok', code: null });
});

test('a suspect peer that failed is waited for, and asked again when it is none any more', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'peer_unreachable', suspect: true } };
  const mesh = scriptedMesh(scripts);
  const { after } = watch(mesh);
  assert.equal(await after(1000), null);
  scripts['a'] = OK;
  assert.deepEqual(await after(300), { text: 'ok', code: null });
  assert.deepEqual(mesh.dials(), ['a', 'a']);
});

test('an engine that rests for a moment is waited for, one that rests for long is not', async () => {
  const rests = (retryAfterMs: number): PlayedScript => ({ ending: 'wedged', facts: { retryAfterMs } });
  const scripts = { a: rests(3000) };
  const mesh = scriptedMesh(scripts);
  assert.equal((await mesh.run()).code, 'wedged', 'who asked it is told');
  const { after } = watch(mesh);
  assert.equal(await after(2500), null);
  Object.assign(scripts, { a: OK });
  assert.deepEqual(await after(1000), { text: 'ok', code: null });
  const long = scriptedMesh({ a: rests(8000) });
  await long.run();
  assert.equal((await long.run()).code, 'all_circuits_open');
});

test('nothing is waited for where nobody may be asked: load balancing off, here only, the client gone', async () => {
  const off = scriptedMesh({}, { loadBalancing: { enabled: false } });
  awaiting(off);
  assert.equal((await off.run()).code, 'model_not_available');
  const here = scriptedMesh({});
  awaiting(here);
  assert.equal((await here.run({}, { boundary: 'local' })).code, 'model_not_available');
  const left = scriptedMesh({});
  awaiting(left);
  const { client, running, after } = watch(left);
  assert.equal(await after(500), null);
  client.abort();
  await running;
  assert.equal((await after(0))?.code, 'client_closed');
});
