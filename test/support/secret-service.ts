/** A real Secret Service on a D-Bus of its own: gnome-keyring, unlocked with a password of the test. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';

/** No activation: what is not started here must not appear by itself. */
const BUS_CONFIG = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=SOCKET</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>`;

/** Null where the packages are there, else what is missing. */
export function missingSecretService(): string | null {
  try {
    // `dbus-send --version` fails: `dbus-uuidgen` comes with it.
    for (const program of ['dbus-daemon', 'dbus-uuidgen', 'gnome-keyring-daemon']) {
      execFileSync(program, ['--version'], { stdio: 'ignore', env: { PATH: process.env['PATH'], HOME: tmpdir() } });
    }
    return null;
  } catch {
    return 'needs a Secret Service: apt-get install dbus gnome-keyring';
  }
}

export class SecretService {
  readonly #dir = mkdtempSync(path.join(tmpdir(), 'secret-service-'));
  readonly #bus: ChildProcess;
  #keyring: ChildProcess | null = null;
  /** What a program needs to find it, and nothing else. */
  readonly env: Readonly<Record<string, string>>;

  private constructor() {
    chmodSync(this.#dir, 0o700);
    const [config, socket] = [path.join(this.#dir, 'bus.conf'), path.join(this.#dir, 'bus')];
    writeFileSync(config, BUS_CONFIG.replace('SOCKET', socket));
    for (const name of ['data', 'runtime']) mkdirSync(path.join(this.#dir, name), { mode: 0o700 });
    this.env = {
      PATH: process.env['PATH'] ?? '',
      HOME: this.#dir,
      DBUS_SESSION_BUS_ADDRESS: `unix:path=${socket}`,
      XDG_DATA_HOME: path.join(this.#dir, 'data'),
      XDG_RUNTIME_DIR: path.join(this.#dir, 'runtime'),
    };
    this.#bus = spawn('dbus-daemon', [`--config-file=${config}`, '--nofork', '--print-address'], {
      env: this.env,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  }

  /** Running and unlocked. */
  static async start(): Promise<SecretService> {
    const service = new SecretService();
    if (service.#bus.stdout === null) throw new Error('no pipe');
    await once(createInterface(service.#bus.stdout), 'line');
    await service.startKeyring();
    return service;
  }

  /** A further one after `killKeyring`: its collections are those of before. */
  async startKeyring(): Promise<void> {
    const keyring = spawn('gnome-keyring-daemon', ['--foreground', '--unlock', '--components=secrets'], {
      env: this.env,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#keyring = keyring;
    keyring.stdin?.end('a password of the test');
    const owner = ['string:org.freedesktop.secrets'];
    for (
      let tries = 0;
      !this.#call('/', 'org.freedesktop.DBus', 'org.freedesktop.DBus.GetNameOwner', owner);
      tries += 1
    ) {
      if (tries > 100 || keyring.exitCode !== null) throw new Error('the keyring does not come up');
      await setTimeout(50);
    }
  }

  /** Locks what it keeps: reading then wants its owner, who is not there. */
  lock(): void {
    const collections = 'array:objpath:/org/freedesktop/secrets/collection/login';
    const done = this.#call(
      '/org/freedesktop/secrets',
      'org.freedesktop.secrets',
      'org.freedesktop.Secret.Service.Lock',
      [collections],
    );
    if (!done) throw new Error('cannot be locked');
  }

  /** It lives and says nothing any more, until `resume`. */
  pause(): void {
    this.#keyring?.kill('SIGSTOP');
  }

  resume(): void {
    this.#keyring?.kill('SIGCONT');
  }

  async killKeyring(): Promise<void> {
    const keyring = this.#keyring;
    this.#keyring = null;
    await ended(keyring);
  }

  async stop(): Promise<void> {
    await this.killKeyring();
    await ended(this.#bus);
    rmSync(this.#dir, { recursive: true, force: true, maxRetries: 3 });
  }

  #call(object: string, to: string, method: string, values: readonly string[]): boolean {
    const words = ['--session', '--print-reply', '--reply-timeout=5000', `--dest=${to}`, object, method, ...values];
    try {
      execFileSync('dbus-send', words, { env: this.env, stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  }
}

async function ended(child: ChildProcess | null): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}
