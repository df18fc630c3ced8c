/** Ctrl-C and friends, each counted once whether it came directly, through the parent that re-executed us, or both ways. */

/** What is needed of `process`. */
export interface SignalHost {
  readonly pid: number;
  readonly connected?: boolean;
  readonly channel?: { unref(): void } | undefined;
  on(event: string, listener: (value?: unknown) => void): unknown;
  off(event: string, listener: (value?: unknown) => void): unknown;
  kill(pid: number, signal: string): unknown;
}

/** `count`: how many times the user has asked to stop, this time included. */
export type SignalListener = (signal: NodeJS.Signals, count: number) => void;

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * Install once, at the start of the process. A terminal sends Ctrl-C to parent and child, `kill` to one of them: the
 * number of requests is therefore the larger of what was seen directly and what the parent passed on. A parent that is
 * gone counts as a request as well, so that no process outlives it.
 */
export class SignalSource {
  readonly #host: SignalHost;
  #listener: SignalListener | null = null;
  #direct = 0;
  #forwarded = 0;
  #reported = 0;
  #uninstall: () => void = () => {};

  constructor(host: SignalHost) {
    this.#host = host;
    host.on('message', (message) => this.#onMessage(message));
    host.on('disconnect', () => this.#onForwarded('SIGTERM'));
    // The two listeners would keep a command that is done from ending.
    host.channel?.unref();
  }

  /** Routes requests to `listener` instead of ending the process; one listener at a time. Returns the way back. */
  listen(listener: SignalListener): () => void {
    this.#uninstall();
    this.#listener = listener;
    const handlers = SIGNALS.map((signal) => {
      const handler = (): void => this.#onDirect(signal);
      this.#host.on(signal, handler);
      return () => this.#host.off(signal, handler);
    });
    this.#uninstall = () => {
      for (const remove of handlers) remove();
      this.#listener = null;
    };
    return this.#uninstall;
  }

  #onMessage(message: unknown): void {
    if (typeof message !== 'object' || message === null || !('forwardedSignal' in message)) return;
    const signal = SIGNALS.find((known) => known === message.forwardedSignal);
    if (signal !== undefined) this.#onForwarded(signal);
  }

  #onDirect(signal: NodeJS.Signals): void {
    this.#direct += 1;
    this.#report(signal);
  }

  #onForwarded(signal: NodeJS.Signals): void {
    this.#forwarded += 1;
    // Nobody listens: do what the signal itself would have done.
    if (this.#listener === null) this.#host.kill(this.#host.pid, signal);
    else this.#report(signal);
  }

  #report(signal: NodeJS.Signals): void {
    const count = Math.max(this.#direct, this.#forwarded);
    if (count === this.#reported) return;
    this.#reported = count;
    this.#listener?.(signal, count);
  }
}
