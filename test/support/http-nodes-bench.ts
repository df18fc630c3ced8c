/** The registered HTTP nodes of a node, over a real registry, on a clock that the test moves. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import type { TestContext } from 'node:test';
import type { GatewayView } from '../../node/backends/gateway.ts';
import { HttpNodes, type HttpNodesOptions } from '../../node/backends/openai-http/http-nodes.ts';
import { createLogger } from '../../node/common/logger.ts';
import { type NodeRegistry, openNodeRegistry } from '../../node/storage/node-registry.ts';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { ManualClock } from './manual-clock.ts';
import { OpenAiServer } from './openai-server.ts';
import { untilChange } from './until-change.ts';

export interface HttpNodesBench {
  /** Its data dir. */
  readonly dir: string;
  readonly registry: NodeRegistry;
  readonly nodes: HttpNodes;
  readonly clock: ManualClock;
  /** Resolves with the first list that fits, now or after a change. */
  when(fits: (list: readonly GatewayView[]) => boolean): Promise<readonly GatewayView[]>;
  log(): string;
}

/** Stopped when the test is over. */
export async function httpNodesBench(t: TestContext, options: HttpNodesOptions = {}): Promise<HttpNodesBench> {
  const dir = await mkdtemp(path.join(tmpdir(), 'http-nodes-'));
  const registry = await openNodeRegistry(dir);
  const clock = new ManualClock();
  let log = '';
  const sink = new Writable({
    write(line: Buffer, _encoding, done) {
      log += line.toString();
      done();
    },
  });
  const nodes = new HttpNodes({ registry, clock, logger: createLogger('trace', sink) }, options);
  nodes.start();
  t.after(async () => {
    await nodes.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const when: HttpNodesBench['when'] = async (fits) => {
    let list = nodes.list();
    await untilChange(nodes, () => {
      list = nodes.list();
      return fits(list);
    });
    return list;
  };
  return { dir, registry, nodes, clock, when, log: () => log };
}

/** A server that stops when the test is over. */
export async function server(t: TestContext): Promise<OpenAiServer> {
  const started = await OpenAiServer.start();
  t.after(() => started.stop());
  return started;
}

/** The first of the list. */
export const statusIs = (status: string) => (list: readonly GatewayView[]) => list[0]?.status === status;

/** Lets the timer of the next poll be set, which happens just after the change is told. */
export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** All events of one answer. */
export async function answerOf(nodes: HttpNodes, model: string, body: object): Promise<InferenceEvent[]> {
  const [holder] = nodes.holders(model);
  assert.ok(holder, `somebody has ${model}`);
  const request = {
    requestId: '0'.repeat(32),
    kind: 'chat',
    model,
    body: Buffer.from(JSON.stringify(body)),
    seed: 1,
  } as const;
  const events: InferenceEvent[] = [];
  for await (const event of holder.backend.infer(request, { signal: AbortSignal.timeout(10_000) })) events.push(event);
  return events;
}
