import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { NodeEvent } from '../../node/node-event.ts';
import { Lan, namespacesUnavailable } from '../support/namespaces.ts';
import { NodeProcess, signalQuietly, temporaryDir } from '../support/node-process.ts';
import type { ChatOutcome } from '../support/openai-main.ts';

const CLIENT = path.resolve(import.meta.dirname, '../support/openai-main.ts');
const STORY = 'Tell me a story about a fox named Anna.';
const unavailable = namespacesUnavailable();

/** Machines of one LAN, each with a node that serves a model of its own: `model-0`, `model-1`, … */
class Machines {
  readonly lan: Lan;
  readonly nodes: NodeProcess[] = [];
  readonly #dirs: string[] = [];

  constructor(count: number) {
    this.lan = new Lan(count);
  }

  /** Starts (or starts again, with its old identity) the node of machine `index`. */
  async start(index: number): Promise<NodeProcess> {
    this.#dirs[index] ??= temporaryDir();
    const model = `model-${index}=${demoModelPath()}`;
    const flags = ['--model', model, '--name', `machine-${index}`, '--port', '8642'];
    const node = new NodeProcess({ on: this.lan.on(index), dataDir: this.#dirs[index], flags });
    this.nodes[index] = node;
    await node.ready();
    return node;
  }

  /** Asks the node of machine `index` as a program on that machine. */
  async ask<T>(index: number, question: object): Promise<T> {
    const [command, ...args] = this.lan.on(index);
    const { api } = await this.node(index).ready();
    const line = [...args, process.execPath, CLIENT, JSON.stringify({ api, ...question })];
    const { stdout } = await promisify(execFile)(command, line, { timeout: 120_000 });
    return JSON.parse(stdout) as T;
  }

  async models(index: number): Promise<string[]> {
    const list = await this.ask<{ data: { id: string }[] }>(index, { path: '/v1/models' });
    return list.data.map((model) => model.id).toSorted();
  }

  node(index: number): NodeProcess {
    const node = this.nodes[index];
    assert.ok(node !== undefined, `machine ${index} has no node`);
    return node;
  }

  /** Waits until the node of machine `index` counts the peer `fingerprint` as up with its models, from event `from` on. */
  async sees(index: number, fingerprint: string, from = 0): Promise<void> {
    const isUp = (event: NodeEvent): boolean =>
      (event.event === 'peer_up' || event.event === 'peer_models') &&
      event.fingerprint === fingerprint &&
      event.models.length > 0;
    await this.node(index).event(isUp, from);
  }

  async loses(index: number, fingerprint: string, from: number): Promise<NodeEvent> {
    return this.node(index).event((event) => event.event === 'peer_down' && event.fingerprint === fingerprint, from);
  }

  async close(): Promise<void> {
    for (const node of this.nodes) await node?.kill();
    this.lan.close();
    for (const dir of this.#dirs) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}

describe('nodes on a LAN of their own', { skip: unavailable ?? false }, () => {
  let machines: Machines;
  const fingerprints: string[] = [];
  const meet = async (...indices: number[]): Promise<void> => {
    for (const a of indices) for (const b of indices) if (a !== b) await machines.sees(a, fingerprints[b] ?? '');
  };

  before(async () => {
    machines = new Machines(4);
    for (const index of [0, 1, 2]) fingerprints[index] = (await (await machines.start(index)).ready()).fingerprint;
  });
  after(() => machines.close());

  test('N-6 N-10 three nodes find each other by mDNS alone and each lists all models', async () => {
    await meet(0, 1, 2);
    for (const index of [0, 1, 2]) assert.deepEqual(await machines.models(index), ['model-0', 'model-1', 'model-2']);
  });

  test('a client of one machine gets, streamed, what the only machine with the model answers itself, byte for byte', async () => {
    const own = await machines.ask<ChatOutcome>(2, { model: 'model-2', prompt: STORY });
    const remote = await machines.ask<ChatOutcome>(0, { model: 'model-2', prompt: STORY, stream: true });
    assert.equal(own.error, null);
    assert.ok(own.text.length > 100, own.text);
    assert.ok(remote.chunks > 10, 'it was streamed');
    assert.deepEqual(
      { text: remote.text, finish: remote.finish, node: remote.node },
      { text: own.text, finish: own.finish, node: fingerprints[2] },
    );
    assert.equal(own.node, fingerprints[2]);
  });

  test('a fourth machine that joins late sees everything and is seen', async () => {
    fingerprints[3] = (await (await machines.start(3)).ready()).fingerprint;
    await meet(0, 1, 2, 3);
    assert.deepEqual(await machines.models(3), ['model-0', 'model-1', 'model-2', 'model-3']);
    assert.equal((await machines.ask<ChatOutcome>(1, { model: 'model-3', prompt: 'Hello!' })).error, null);
  });

  test('the models of a killed node vanish, its model is refused with 503, and all is back when it returns', async () => {
    const from = machines.node(0).events.length;
    signalQuietly(await machines.node(2).pid(), 'SIGKILL');
    await machines.loses(0, fingerprints[2] ?? '', from);
    assert.deepEqual(await machines.models(0), ['model-0', 'model-1', 'model-3']);
    const { error } = await machines.ask<ChatOutcome>(0, { model: 'model-2', prompt: STORY });
    assert.deepEqual([error?.status, error?.code], [503, 'model_not_available']);
    const back = machines.node(0).events.length;
    await machines.node(2).exit();
    assert.equal((await (await machines.start(2)).ready()).fingerprint, fingerprints[2], 'its identity is kept');
    await machines.sees(0, fingerprints[2] ?? '', back);
    assert.ok((await machines.models(0)).includes('model-2'));
  });

  test('the models of a stopped node vanish and come back when it goes on', async () => {
    const pid = await machines.node(1).pid();
    const from = machines.node(0).events.length;
    signalQuietly(pid, 'SIGSTOP');
    await machines.loses(0, fingerprints[1] ?? '', from);
    assert.ok(!(await machines.models(0)).includes('model-1'));
    const back = machines.node(0).events.length;
    signalQuietly(pid, 'SIGCONT');
    await machines.sees(0, fingerprints[1] ?? '', back);
    assert.ok((await machines.models(0)).includes('model-1'));
  });

  test('the models behind a cut cable vanish on both sides and come back when it is mended', async () => {
    const [here, there] = [machines.node(0).events.length, machines.node(3).events.length];
    machines.lan.cut(3);
    await machines.loses(0, fingerprints[3] ?? '', here);
    for (const other of [0, 1, 2]) await machines.loses(3, fingerprints[other] ?? '', there);
    assert.deepEqual(await machines.models(3), ['model-3']);
    const [hereBack, thereBack] = [machines.node(0).events.length, machines.node(3).events.length];
    machines.lan.mend(3);
    await machines.sees(0, fingerprints[3] ?? '', hereBack);
    for (const other of [0, 1, 2]) await machines.sees(3, fingerprints[other] ?? '', thereBack);
    assert.deepEqual(await machines.models(3), ['model-0', 'model-1', 'model-2', 'model-3']);
  });

  test('N-6 a node that is told to stop says goodbye and exits with 0', async () => {
    const from = machines.node(0).events.length;
    machines.node(3).child.kill('SIGTERM');
    const down = await machines.loses(0, fingerprints[3] ?? '', from);
    assert.equal(down.event === 'peer_down' && down.reason, 'goodbye');
    assert.equal((await machines.node(3).exit()).code, 0);
  });
});
