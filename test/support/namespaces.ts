/** Machines of a test's own: network namespaces on a bridge that lives in a namespace too, so that the host sees nothing. */
import { execFileSync, spawnSync } from 'node:child_process';

/** Why namespaces cannot be made here, or null when they can. */
export function namespacesUnavailable(): string | null {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const name = `mnprobe${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', name]);
  if (made.error !== undefined) return 'network namespaces need the `ip` command (Debian: iproute2)';
  if (made.status !== 0) return `network namespaces are not allowed here: ${made.stderr.toString().trim()}`;
  spawnSync('ip', ['netns', 'del', name]);
  return null;
}

const ip = (...args: string[]): void => {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
};

let lans = 0;

/** A LAN of `count` machines, 10.77.0.1 and up, all multicast between them and nothing else. */
export class Lan {
  readonly #prefix = `mn${process.pid}x${lans++}`;
  readonly #switch = `${this.#prefix}sw`;
  readonly #machines: string[] = [];

  constructor(count: number) {
    ip('netns', 'add', this.#switch);
    this.#machines.push(this.#switch);
    ip('-n', this.#switch, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
    ip('-n', this.#switch, 'link', 'set', 'br0', 'up');
    for (let i = 0; i < count; i++) this.#addMachine(i);
  }

  /** The command prefix that runs a program on machine `index`. */
  on(index: number): readonly [command: string, ...args: string[]] {
    return ['ip', 'netns', 'exec', this.#name(index)];
  }

  address(index: number): string {
    return `10.77.0.${index + 1}`;
  }

  /** Gives machine `index` one more address, for example `192.168.1.20/24`. */
  addAddress(index: number, cidr: string): void {
    ip('-n', this.#name(index), 'addr', 'add', cidr, 'dev', 'eth0');
  }

  /** Pulls the cable of machine `index`. */
  cut(index: number): void {
    ip('-n', this.#switch, 'link', 'set', `port${index}`, 'down');
  }

  mend(index: number): void {
    ip('-n', this.#switch, 'link', 'set', `port${index}`, 'up');
  }

  /** Takes the LAN away. Programs still running on it are the caller's to end first. */
  close(): void {
    for (const name of this.#machines.splice(0).toReversed()) spawnSync('ip', ['netns', 'del', name]);
  }

  #name(index: number): string {
    return `${this.#prefix}n${index}`;
  }

  #addMachine(index: number): void {
    const name = this.#name(index);
    ip('netns', 'add', name);
    this.#machines.push(name);
    ip('-n', this.#switch, 'link', 'add', `port${index}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    ip('-n', this.#switch, 'link', 'set', `port${index}`, 'master', 'br0', 'up');
    ip('-n', name, 'link', 'set', 'lo', 'up');
    ip('-n', name, 'addr', 'add', `${this.address(index)}/24`, 'dev', 'eth0');
    ip('-n', name, 'link', 'set', 'eth0', 'up');
    ip('-n', name, 'route', 'add', '224.0.0.0/4', 'dev', 'eth0');
  }
}
