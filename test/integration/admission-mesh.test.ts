import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PeerBackend } from '../../node/backends/peer.ts';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { Metrics } from '../../node/common/metrics.ts';
import { Admission } from '../../node/routing/admission.ts';
import { Inbound } from '../../node/routing/inbound.ts';
import { ServiceState } from '../../node/routing/service-state.ts';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { serveInference } from '../../protocols/inference/server.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { HeldEngine } from '../support/held-engine.ts';
import { catalogEntry, lists, startTestNode, type TestNode } from '../support/swarm.ts';
import { until, watchRejections } from '../support/wire-mesh.ts';

const MODEL = 'm';

/** A node with one slot, and two that ask it. */
async function setUp(context: TestContext) {
  watchRejections(context);
  const clock = systemClock;
  const state = new ServiceState();
  const engine = new HeldEngine([catalogEntry(MODEL, { slots: 1 })]);
  const admission = new Admission({ engine, clock, state });
  const inbound = new Inbound({ local: engine, metrics: new Metrics(), state, admission });
  const node = await startTestNode({
    models: [MODEL],
    handlers: new Map([
      [
        INFERENCE_PROTOCOL,
        (stream, from) =>
          serveInference(stream, from, (request, received) => inbound.serve(request, received), { clock }),
      ],
    ]),
  });
  context.after(() => node.stop());
  const [a, b] = await Promise.all([join(context, node), join(context, node)]);
  return { state, engine, admission, inbound, a, b, node };
}

async function join(context: TestContext, to: TestNode): Promise<TestNode> {
  const asker = await startTestNode({ peers: [to.address] });
  context.after(() => asker.stop());
  await lists(asker, to.fingerprint, [MODEL]);
  return asker;
}

interface Asked {
  readonly types: string[];
  outcome: string;
  error: MeshError | null;
  abort(): void;
}

/** Follows a request to its end; `label` becomes its id. */
function follow(
  label: string,
  infer: (
    request: { requestId: string; kind: 'chat'; model: string; body: Uint8Array; seed: number },
    options: { signal: AbortSignal },
  ) => AsyncIterable<InferenceEvent>,
): Asked {
  const aborting = new AbortController();
  const asked: Asked = { types: [], outcome: 'open', error: null, abort: () => aborting.abort() };
  const run = async (): Promise<void> => {
    const request = {
      requestId: label.repeat(32),
      kind: 'chat',
      model: MODEL,
      body: new Uint8Array(),
      seed: 1,
    } as const;
    try {
      for await (const event of infer(request, { signal: aborting.signal })) asked.types.push(event.type);
      asked.outcome = 'ok';
    } catch (error) {
      assert.ok(error instanceof MeshError, String(error));
      asked.error = error;
      asked.outcome = error.code;
    }
  };
  void run();
  return asked;
}

function fromPeer(label: string, asker: TestNode, to: TestNode): Asked {
  const backend = new PeerBackend({ streams: asker.streams, peers: asker.table, clock: systemClock }, to.fingerprint);
  return follow(label, (request, options) => backend.infer(request, options));
}

test('a request of a peer waits behind those of the node itself, and is told so while it waits', async (context) => {
  const { engine, admission, a, b, node, inbound } = await setUp(context);
  const first = fromPeer('a', a, node);
  await until(() => engine.running.length === 1);
  const [second, third] = [fromPeer('b', a, node), fromPeer('c', b, node)];
  await until(() => admission.load().queued === 2);
  const own = follow('d', (request, options) => admission.local.infer(request, options));
  await until(() => admission.load().queued === 3 && second.types.length > 1 && third.types.length > 1);
  assert.ok(second.types.every((type) => type === 'progress'));
  while (engine.started.length < 4 || engine.running.length > 0) {
    engine.running[0]?.finish();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => [first, second, third, own].every(({ outcome }) => outcome === 'ok'));
  assert.deepEqual(engine.started.slice(0, 2), ['a'.repeat(32), 'd'.repeat(32)]);
  await until(() => inbound.active() === 0);
});

test('a peer that is gone leaves no place in the queue behind', async (context) => {
  const { engine, admission, a, b, node, inbound } = await setUp(context);
  fromPeer('a', a, node);
  await until(() => engine.running.length === 1);
  const second = fromPeer('b', a, node);
  const third = fromPeer('c', b, node);
  await until(() => admission.load().queued === 2);
  second.abort();
  await until(() => admission.load().queued === 1);
  await a.kill();
  await until(() => engine.running[0]?.request.requestId === 'c'.repeat(32));
  engine.running[0]?.finish();
  await until(() => third.outcome === 'ok' && inbound.active() === 0);
  assert.equal(admission.load().queued, 0);
});

test('a full queue, a paused and a draining node say so over the wire, with when to come back', async (context) => {
  const { state, engine, admission, a, b, node } = await setUp(context);
  const own = follow('a', (request, options) => admission.local.infer(request, options));
  await until(() => engine.running.length === 1);
  const waiting = ['b', 'c', 'd', 'e'].map((label) => fromPeer(label, a, node));
  await until(() => admission.load().queued === 4);
  const over = fromPeer('f', a, node);
  await until(() => over.outcome !== 'open');
  assert.equal(over.outcome, 'overloaded');
  assert.ok((over.error?.facts.retryAfterMs ?? 0) > 0);

  state.set('paused');
  await until(() => waiting.every(({ outcome }) => outcome === 'draining'));
  assert.ok(waiting.every(({ error }) => (error?.facts.retryAfterMs ?? 0) > 0));
  const late = fromPeer('1', b, node);
  await until(() => late.outcome === 'draining');
  engine.running[0]?.finish();
  await until(() => own.outcome === 'ok');

  state.set('open');
  const running = fromPeer('2', b, node);
  await until(() => engine.running.length === 1);
  state.set('draining');
  const refused = fromPeer('3', b, node);
  await until(() => refused.outcome === 'draining');
  engine.running[0]?.finish();
  await until(() => running.outcome === 'ok');
});
