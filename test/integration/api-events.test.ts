/** The live picture of the mesh, over a real socket. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startFacade } from '../support/scripted-facade.ts';

interface Happening {
  readonly event: string;
  readonly name: string;
}

/** A node whose events the test makes. */
function announcer() {
  const listeners = new Set<(event: Happening) => void>();
  return {
    listeners,
    say: (event: Happening) => {
      for (const listener of listeners) listener(event);
    },
    events: (listener: (event: Happening) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** Reads events until `count` have come. */
async function read(response: Response, count: number): Promise<string[]> {
  const reader = (response.body ?? assert.fail('no body')).pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (text.split('\n\n').length <= count) {
    const { value, done } = await reader.read();
    assert.ok(!done, `ended after ${text}`);
    text += value;
  }
  await reader.cancel();
  return text.split('\n\n').slice(0, count);
}

test('N-3 a follower is told who is there, and then what happens as it happens', async (t) => {
  const { events, say, listeners } = announcer();
  const { url, stop } = await startFacade({}, {}, { events });
  t.after(stop);
  const response = await fetch(`${url}/api/v1/mesh/events`);
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
  say({ event: 'peer_up', name: 'two\nlines' });
  const [first = '', second = ''] = await read(response, 2);
  assert.match(first, /^event: mesh\ndata: \{"peers":\[\{.*"models":\["far\/model"\].*\}\]\}$/);
  assert.equal(second, 'event: peer_up\ndata: {"event":"peer_up","name":"two\\nlines"}');
  while (listeners.size > 0) await new Promise((resolve) => setImmediate(resolve));
});

test('N-3 followers are limited, and one that leaves makes room', async (t) => {
  const { events, listeners } = announcer();
  const { url, stop } = await startFacade({}, {}, { events });
  t.after(stop);
  const leave = new AbortController();
  for (let i = 0; i < 16; i++) await fetch(`${url}/api/v1/mesh/events`, { signal: leave.signal });
  const refused = await fetch(`${url}/api/v1/mesh/events`);
  assert.deepEqual([refused.status, refused.headers.get('retry-after')], [429, '5']);
  leave.abort();
  while (listeners.size > 0) await new Promise((resolve) => setImmediate(resolve));
  const again = await fetch(`${url}/api/v1/mesh/events`);
  assert.equal(again.status, 200);
  await again.body?.cancel();
});

test('a node that stops does not wait for its followers', async () => {
  const { events } = announcer();
  const { url, stop } = await startFacade({}, {}, { events });
  const response = await fetch(`${url}/api/v1/mesh/events`);
  await stop();
  await assert.rejects(response.text());
});
