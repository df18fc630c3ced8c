/** An engine child under watch: its beats are read here, and one that is wedged is killed. */
import type { CancelTimer, Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/logger.ts';
import { BeatWatch } from './beat-watch.ts';
import { EngineProcess } from './engine-process.ts';
import { BEAT_PERIOD_MS, type FromChild, type ToChild } from './ipc.ts';

/** Drivers and mapping may block a child that loads. */
const LOADING_SILENCE_MS = 60_000;
const LONGEST_STEP_MS = 180_000;

export interface SupervisedChildComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly work: () => 'idle' | 'loading' | 'busy';
  /** Everything that it says, but for its beats. */
  readonly onMessage: (message: Exclude<FromChild, { type: 'beat' }>) => void;
  /** It hangs and is about to be killed; `onExit` follows. */
  readonly onWedged: () => void;
  /** Called exactly once, with words for how it ended. */
  readonly onExit: (how: string) => void;
}

export class SupervisedChild {
  readonly #components: SupervisedChildComponents;
  readonly #process: EngineProcess;
  readonly #watch: BeatWatch;
  readonly #stopWatching: CancelTimer;

  /** Forks at once. `silenceMs`: of one that has work, after which it is wedged. */
  constructor(components: SupervisedChildComponents, silenceMs: number) {
    const { clock, logger, onExit } = components;
    this.#components = components;
    this.#process = new EngineProcess({
      logger,
      onMessage: (message) => this.#receive(message),
      onExit: (how) => {
        this.#stopWatching();
        onExit(how);
      },
    });
    const bounds = {
      tickMs: BEAT_PERIOD_MS,
      silenceMs,
      loadingSilenceMs: LOADING_SILENCE_MS,
      stepMs: LONGEST_STEP_MS,
    };
    this.#watch = new BeatWatch(bounds, clock.now());
    this.#stopWatching = clock.every(BEAT_PERIOD_MS, () => this.#look());
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Since its last step. */
  get ageMs(): number {
    return Math.round(this.#watch.ageMs(this.#components.clock.now()));
  }

  /** Dropped when the channel is closed: the exit that follows says so. */
  send(message: ToChild): void {
    this.#process.send(message);
  }

  /** Resolves when the process is gone. */
  kill(): Promise<void> {
    this.#stopWatching();
    return this.#process.kill();
  }

  #receive(message: FromChild): void {
    const { clock, onMessage } = this.#components;
    if (message.type === 'beat') {
      this.#watch.beat(clock.now(), message.ageMs);
      return;
    }
    if (message.type === 'step') this.#watch.stepped(clock.now());
    onMessage(message);
  }

  #look(): void {
    const { clock, work, onWedged } = this.#components;
    if (!this.#watch.tick(clock.now(), work())) return;
    this.#stopWatching();
    onWedged();
    void this.#process.kill();
  }
}
