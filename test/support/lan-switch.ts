/** A LAN whose cables lose, delay and reorder, each direction by itself. Linux, root, `ip` and python3. */
import { type ChildProcessByStdio, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { namespacesUnavailable } from './namespaces.ts';

const SWITCH = path.join(import.meta.dirname, 'lan-switch.py');

/** What happens to each frame. Loss: 0 to 1. Frames overtake each other within the jitter. */
export interface CableRule {
  readonly delayMs: number;
  readonly jitterMs: number;
  readonly loss: number;
  readonly cut: boolean;
}

const CLEAN: CableRule = { delayMs: 0, jitterMs: 0, loss: 0, cut: false };

/** Why such a LAN cannot be made here, or null when it can. */
export function lanSwitchUnavailable(): string | null {
  const unavailable = namespacesUnavailable();
  if (unavailable !== null) return unavailable;
  return spawnSync('python3', ['-c', 'import fcntl']).status === 0 ? null : 'the lossy LAN needs python3';
}

const ip = (...args: string[]): void => {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
};

let lans = 0;

/** Machines 10.77.0.1 and up; the same handles as `Lan`, and rules for its cables. */
export class SwitchedLan {
  readonly #prefix = `ms${process.pid}x${lans++}`;
  readonly #count: number;
  readonly #switch: ChildProcessByStdio<Writable, Readable, null>;

  private constructor(count: number, seed: number) {
    this.#count = count;
    ip('netns', 'add', this.#name('sw'));
    // Frames are few and small, but must not wait for the machines that they connect.
    const line = ['netns', 'exec', this.#name('sw'), 'nice', '-n', '-5', 'python3', SWITCH, `${count}`, `${seed}`];
    this.#switch = spawn('ip', line, { stdio: ['pipe', 'pipe', 'inherit'] });
  }

  /** `seed` decides which frames are lost. */
  static async open(count: number, seed = 1): Promise<SwitchedLan> {
    const lan = new SwitchedLan(count, seed);
    await once(lan.#switch.stdout, 'data');
    for (let index = 0; index < count; index++) lan.#plugIn(index);
    return lan;
  }

  /** The command prefix that runs a program on machine `index`. */
  on(index: number): readonly [command: string, ...args: string[]] {
    return ['ip', 'netns', 'exec', this.#name(index)];
  }

  address(index: number): string {
    return `10.77.0.${index + 1}`;
  }

  /** Gives machine `index` another address instead of its own, for example `10.77.0.99`. */
  readdress(index: number, address: string): void {
    const name = this.#name(index);
    ip('-n', name, 'addr', 'flush', 'dev', 'eth0');
    ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', 'eth0');
    ip('-n', name, 'route', 'replace', '224.0.0.0/4', 'dev', 'eth0');
  }

  /** Rules for frames from any of `from` to any of `to`, instead of those before; what is not said is as on a good cable. */
  async shape(from: readonly number[], to: readonly number[], rule: Partial<CableRule>): Promise<void> {
    this.#switch.stdin.write(`${JSON.stringify({ ...CLEAN, ...rule, from, to })}\n`);
    await once(this.#switch.stdout, 'data');
  }

  /** The same rule for every cable and direction. */
  shapeAll(rule: Partial<CableRule>): Promise<void> {
    const all = Array.from({ length: this.#count }, (_, index) => index);
    return this.shape(all, all, rule);
  }

  /** Pulls the cable of machine `index`. */
  async cut(index: number): Promise<void> {
    await this.cutBetween([index], this.#others([index]));
  }

  /** Nothing passes between the two groups. */
  async cutBetween(some: readonly number[], others: readonly number[]): Promise<void> {
    await this.shape(some, others, { cut: true });
    await this.shape(others, some, { cut: true });
  }

  /** Machine `index` is connected as at first. */
  async mend(index: number): Promise<void> {
    const others = this.#others([index]);
    await this.shape([index], others, CLEAN);
    await this.shape(others, [index], CLEAN);
  }

  mendAll(): Promise<void> {
    return this.shapeAll(CLEAN);
  }

  /** Resets every TCP connection between machine `index` and the others, and refuses new ones until `heal`. */
  reset(index: number): void {
    this.#iptables(index, '-A');
  }

  heal(index: number): void {
    this.#iptables(index, '-D');
  }

  /** Takes the LAN away. Programs still running on it are the caller's to end first. */
  close(): void {
    this.#switch.stdin.end();
    const names = [...Array(this.#count).keys()].map((index) => this.#name(index));
    for (const name of [...names, this.#name('sw')]) spawnSync('ip', ['netns', 'del', name]);
  }

  #others(some: readonly number[]): number[] {
    return [...Array(this.#count).keys()].filter((index) => !some.includes(index));
  }

  #name(part: number | string): string {
    return `${this.#prefix}${typeof part === 'number' ? `n${part}` : part}`;
  }

  #iptables(index: number, change: '-A' | '-D'): void {
    // Resets themselves pass, so that both ends hear of it.
    const frames = ['-p', 'tcp', '!', '-i', 'lo', '!', '--tcp-flags', 'RST', 'RST'];
    const rule = [change, 'INPUT', ...frames, '-j', 'REJECT', '--reject-with', 'tcp-reset'];
    const [command, ...args] = this.on(index);
    execFileSync(command, [...args, 'iptables', '-w', ...rule], { stdio: ['ignore', 'ignore', 'pipe'] });
  }

  #plugIn(index: number): void {
    const name = this.#name(index);
    ip('netns', 'add', name);
    ip('-n', this.#name('sw'), 'link', 'set', `tap${index}`, 'netns', name, 'name', 'eth0');
    ip('-n', name, 'link', 'set', 'lo', 'up');
    ip('-n', name, 'addr', 'add', `${this.address(index)}/24`, 'dev', 'eth0');
    ip('-n', name, 'link', 'set', 'eth0', 'up');
    ip('-n', name, 'route', 'add', '224.0.0.0/4', 'dev', 'eth0');
  }
}
