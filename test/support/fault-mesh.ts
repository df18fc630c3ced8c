/** Real nodes on the machines of a lossy LAN, the faults that may strike them, and clients on every machine. */
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { NodeEvent } from '../../node/node-event.ts';
import { type Asked, Asker } from './fault-asker.ts';
import type { SwitchedLan } from './lan-switch.ts';
import type { Question } from './ledger.ts';
import { NodeProcess, signalQuietly, temporaryDir } from './node-process.ts';
import type { Vitals } from './vitals-main.ts';

const SCRIPTED_MAIN = path.join(import.meta.dirname, 'fault-node-main.ts');
/** Between two looks at what no event tells. */
const LOOK_MS = 100;
/** For everything that must come to pass; only a defect reaches it. */
const PATIENCE_MS = 40_000;
/** A node may be stopped just then. */
const VITALS_PATIENCE_MS = 2000;

/** What a machine runs. */
export interface MachinePlan {
  /** `scripted`: `fault-node-main.ts`; `real`: `meshnode start` with the demo model under each id. */
  readonly engine: 'scripted' | 'real';
  readonly models: readonly string[];
  /** Of a scripted engine, before each token. */
  readonly tokenDelayMs?: number;
}

/** The parts of `GET /api/v1/peers` that are read here. */
interface SeenPeer {
  readonly fingerprint: string;
  readonly status: string;
  readonly models: readonly unknown[];
  readonly load: { readonly inFlight: number; readonly queued: number } | null;
}

export class FaultMesh {
  readonly lan: SwitchedLan;
  readonly #plans: MachinePlan[];
  readonly #env: Readonly<Record<string, string>>;
  readonly #nodes: (NodeProcess | undefined)[] = [];
  readonly #askers: (Asker | undefined)[] = [];
  readonly #dirs: string[] = [];
  readonly #stopped = new Set<number>();
  readonly #fingerprints: string[] = [];
  /** What nodes that ended had written to stderr. */
  readonly #lastWords: string[] = [];

  /** `env` is added to the environment of every node. */
  constructor(lan: SwitchedLan, plans: readonly MachinePlan[], env: Readonly<Record<string, string>> = {}) {
    this.lan = lan;
    this.#env = env;
    this.#plans = [...plans];
  }

  /** Starts the node of machine `index`, again with its old identity where it had one; `plan` replaces the old one. */
  async start(index: number, plan: Partial<MachinePlan> = {}): Promise<void> {
    const merged = { ...this.#plan(index), ...plan };
    this.#plans[index] = merged;
    this.#dirs[index] ??= temporaryDir();
    const { engine, models, tokenDelayMs = 0 } = merged;
    const names = ['--name', `machine-${index}`, '--port', '8642'];
    const node = new NodeProcess({
      on: this.lan.on(index),
      dataDir: this.#dirs[index] ?? '',
      ...(engine === 'scripted'
        ? {
            bin: SCRIPTED_MAIN,
            flags: names,
            env: { ...this.#env, SCRIPTED_MODELS: models.join(','), SCRIPTED_DELAY_MS: String(tokenDelayMs) },
          }
        : { env: this.#env, flags: [...names, ...models.flatMap((id) => ['--model', `${id}=${demoModelPath()}`])] }),
    });
    this.#nodes[index] = node;
    this.#fingerprints[index] = (await node.ready()).fingerprint;
  }

  /** Starts every machine that does not run and waits until all see the models of all. */
  async startAll(): Promise<void> {
    await Promise.all(this.#plans.map((_, index) => (this.#nodes[index] === undefined ? this.start(index) : null)));
    await this.whole();
  }

  node(index: number): NodeProcess {
    const node = this.#nodes[index];
    if (node === undefined) throw new Error(`machine ${index} runs no node`);
    return node;
  }

  fingerprint(index: number): string {
    return this.#fingerprints[index] ?? '';
  }

  /** Which machine has this fingerprint; -1 for none. */
  machineOf(fingerprint: string | null): number {
    return this.#fingerprints.indexOf(fingerprint ?? '');
  }

  pid(index: number): Promise<number> {
    return this.node(index).pid();
  }

  /** Pids of the node's engine children. */
  async engineChildren(index: number): Promise<number[]> {
    const pid = await this.pid(index);
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return text === '' ? [] : text.split(' ').map(Number);
  }

  async signal(index: number, signal: NodeJS.Signals): Promise<void> {
    signalQuietly(await this.pid(index), signal);
    if (signal === 'SIGSTOP') this.#stopped.add(index);
    if (signal === 'SIGCONT') this.#stopped.delete(index);
  }

  /** SIGKILL, and waits for the end of the process. */
  async kill(index: number): Promise<void> {
    await this.signal(index, 'SIGKILL');
    await this.ended(index);
  }

  /** SIGTERM, its end, and a new start; returns the exit code. */
  async restart(index: number, plan: Partial<MachinePlan> = {}): Promise<number | null> {
    await this.signal(index, 'SIGTERM');
    const code = await this.ended(index);
    await this.start(index, plan);
    await this.whole();
    return code;
  }

  /** Waits for the end of the process; returns its exit code. */
  async ended(index: number): Promise<number | null> {
    const node = this.node(index);
    const { code } = await node.exit();
    this.#lastWords.push(`machine ${index}: ${node.stderr}`);
    this.#nodes[index] = undefined;
    this.#stopped.delete(index);
    return code;
  }

  /** What `vitals-main.ts` in the node of machine `index` says; null while the node is stopped. */
  async vitals(index: number): Promise<Vitals | null> {
    if (this.#stopped.has(index)) return null;
    const { child } = this.node(index);
    const said = new Promise<Vitals | null>((resolve) => {
      const look = (text: string): void => {
        const found = /vitals (\{.*\})/.exec(text)?.[1];
        if (found !== undefined) done(JSON.parse(found) as Vitals);
      };
      const done = (vitals: Vitals | null): void => {
        clearTimeout(timer);
        child.stderr?.off('data', look);
        resolve(vitals);
      };
      const timer = setTimeout(() => done(null), VITALS_PATIENCE_MS);
      child.stderr?.on('data', look);
    });
    signalQuietly(await this.pid(index), 'SIGUSR2');
    return said;
  }

  /** What any node wrote about errors that nobody owned, and about leaks. */
  unowned(): string[] {
    const running = this.#nodes.map((node, index) => `machine ${index}: ${node?.stderr ?? ''}`);
    return [...this.#lastWords, ...running].filter((text) => /Warning:|[Uu]nhandled|[Uu]ncaught/.test(text));
  }

  /** Does the node of machine `index` leave any peer out because of failures? */
  async hasOpenCircuit(index: number): Promise<boolean> {
    const { body } = await this.asker(index).get('http://127.0.0.1:8642/api/v1/pool/routing-stats');
    return body.includes('"circuitOpen":true');
  }

  /** Events of machine `index` from number `from` on. */
  events(index: number, from = 0): readonly NodeEvent[] {
    return this.node(index).events.slice(from);
  }

  /** Clients on machine `index`. */
  asker(index: number): Asker {
    const asker = this.#askers[index] ?? new Asker(this.lan.on(index));
    this.#askers[index] = asker;
    return asker;
  }

  /** Asks the node of machine `at` from a client on the same machine. */
  ask(question: Question, at = 0, marks: readonly number[] = [1]): Asked {
    return this.asker(at).ask(question, 'http://127.0.0.1:8642', marks);
  }

  /** What the node of machine `index` says about its peers; none when it does not answer. */
  async peers(index: number): Promise<readonly SeenPeer[]> {
    const { status, body } = await this.asker(index).get('http://127.0.0.1:8642/api/v1/peers');
    return status === 200 ? (JSON.parse(body) as { peers: SeenPeer[] }).peers : [];
  }

  /** What the node of machine `index` did with a request: its attempts, in its own words. */
  async explanation(requestId: string, index: number): Promise<string> {
    const { body } = await this.asker(index).get(`http://127.0.0.1:8642/api/v1/requests/${requestId}`);
    return body.slice(0, 2000);
  }

  /** Waits until every running node counts every other one, with its models, as online. */
  async whole(): Promise<void> {
    const running = this.#running();
    await until('all nodes see each other', async () => {
      for (const index of running) {
        const online = (await this.peers(index)).filter(({ status }) => status === 'online');
        for (const other of running) {
          const due = this.#plan(other).models.length;
          const seen = online.find(({ fingerprint }) => fingerprint === this.fingerprint(other));
          if (other !== index && (seen === undefined || seen.models.length < due)) {
            return `machine ${index} misses machine ${other}`;
          }
        }
      }
      return null;
    });
  }

  /** Waits until no engine of a running node has a request, as the others hear it. */
  async quiet(): Promise<void> {
    const running = this.#running();
    await until('no slot is occupied', async () => {
      for (const index of running) {
        for (const { fingerprint, status, load } of await this.peers(index)) {
          if (status !== 'online' || load === null) continue;
          if (load.inFlight + load.queued > 0) {
            return `machine ${this.machineOf(fingerprint)} runs ${load.inFlight} and queues ${load.queued}`;
          }
        }
      }
      return null;
    });
  }

  /** Undoes every fault: cables, stopped processes, nodes that ended. */
  async restore(): Promise<void> {
    await this.lan.mendAll();
    for (const index of [...this.#stopped]) await this.signal(index, 'SIGCONT');
    await this.startAll();
  }

  /** Ends all clients with their connections; new ones come with the next question. */
  async hangUp(): Promise<void> {
    for (const asker of this.#askers.splice(0)) await asker?.close();
  }

  async close(): Promise<void> {
    await this.hangUp();
    for (const node of this.#nodes) await node?.kill();
    this.lan.close();
    for (const dir of this.#dirs) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }

  #running(): number[] {
    return [...this.#nodes.keys()].filter((index) => this.#nodes[index] !== undefined && !this.#stopped.has(index));
  }

  #plan(index: number): MachinePlan {
    const plan = this.#plans[index];
    if (plan === undefined) throw new Error(`there is no machine ${index}`);
    return plan;
  }
}

/** Looks until `missing` returns null; its last words are the error. */
export async function until(what: string, missing: () => Promise<string | null>): Promise<void> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  for (;;) {
    const still = await missing();
    if (still === null) return;
    if (performance.now() > giveUpAt) throw new Error(`waited in vain: ${what} (${still})`);
    await sleep(LOOK_MS);
  }
}
