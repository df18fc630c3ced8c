/** Answers that remote functions push back piece by piece: each goes straight to whoever waits for it. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { StreamCallbacks } from '../../storage/fixtures/fixture-types.ts';
import { CallbackTask, type Taken } from './callback-task.ts';

export interface CallbackInboxOptions {
  /** Where remote functions reach this node, without trailing slash, for example `https://node.example`. */
  readonly publicUrl: string;
  /** Shown by every remote function of the owner's; null: the token of the task alone proves who pushes. */
  readonly secret: string | null;
}

/** `gone`: there is no such task, or no longer; `refused`: the token is not its own. */
export type PushOutcome = Taken | 'refused' | 'gone';

/** Who pushes, as it says. */
export interface Push {
  readonly taskId: string;
  readonly token: string | null;
}

interface Task {
  readonly tokenDigest: Buffer;
  readonly answer: CallbackTask;
}

/** From its opening on a task is known for this long, whatever its reader does. */
const TOKEN_TTL_MS = 600_000;
const MAX_TASKS = 1024;
/** What FIRST's function shows where nobody set a secret: everybody knows it. */
const PUBLISHED_SECRET = 'default-secret-change-me';

export class CallbackInbox implements StreamCallbacks {
  readonly #clock: Clock;
  readonly #publicUrl: string;
  readonly #secretDigest: Buffer | null;
  readonly #tasks = new Map<string, Task>();

  /** @throws MeshError `invalid_request` for the secret that FIRST publishes. */
  constructor({ clock }: { readonly clock: Clock }, { publicUrl, secret }: CallbackInboxOptions) {
    if (secret === PUBLISHED_SECRET) throw publishedSecret();
    this.#clock = clock;
    this.#publicUrl = publicUrl;
    this.#secretDigest = secret === null ? null : digest(secret);
  }

  url(): string {
    return this.#publicUrl;
  }

  /** Host and port of `url()` as a client's `Host` header names them. */
  get host(): string {
    return new URL(this.#publicUrl).host;
  }

  /** Tasks that are open. */
  get size(): number {
    return this.#tasks.size;
  }

  /** @throws MeshError `overloaded` when too many are open, `internal_error` when this one is. */
  open(taskId: string): ReturnType<StreamCallbacks['open']> {
    if (this.#tasks.has(taskId)) throw new MeshError('internal_error', `The task ${taskId} is open already.`);
    if (this.#tasks.size >= MAX_TASKS) {
      const message = 'Too many streamed answers are on their way; try again shortly';
      throw new MeshError('overloaded', message, { retryAfterMs: 1000 });
    }
    const token = randomBytes(32).toString('base64url');
    const answer = new CallbackTask({ clock: this.#clock });
    this.#tasks.set(taskId, { tokenDigest: digest(token), answer });
    const cancelExpiry = this.#clock.after(TOKEN_TTL_MS, () => this.#tasks.delete(taskId));
    let isClosed = false;
    const close = (): void => {
      if (isClosed) return;
      isClosed = true;
      cancelExpiry();
      answer.end(null);
      this.#tasks.delete(taskId);
    };
    return { token, chunks: answer.chunks(), close };
  }

  /** Is this the secret of the owner's remote functions? Yes where there is none. Takes as long for each. */
  knows(secret: string | null): boolean {
    if (this.#secretDigest === null) return true;
    return timingSafeEqual(digest(secret ?? ''), this.#secretDigest) && secret !== null;
  }

  /** A piece of an answer: lines of server-sent events. */
  data(push: Push, data: string): PushOutcome {
    return this.#with(push, (answer) => answer.push(data));
  }

  /** The answer is whole, or the remote function failed. */
  end(push: Push, error: MeshError | null): PushOutcome {
    return this.#with(push, (answer) => answer.end(error));
  }

  /** The reply to the last piece did not reach its sender, who may send it again. */
  unconfirmed(push: Push, data: string): void {
    this.#with(push, (answer) => answer.unconfirmed(data));
  }

  #with({ taskId, token }: Push, act: (answer: CallbackTask) => Taken): PushOutcome {
    const task = this.#tasks.get(taskId);
    if (task === undefined) return 'gone';
    const isOwn = token !== null && timingSafeEqual(digest(token), task.tokenDigest);
    return isOwn ? act(task.answer) : 'refused';
  }
}

function publishedSecret(): MeshError {
  const message = `streaming.secretFile holds "${PUBLISHED_SECRET}", which everybody knows: put a random one there and into INTERNAL_STREAMING_SECRET where the remote function runs`;
  return new MeshError('invalid_request', message, { param: 'streaming.secretFile' });
}

/** Of equal length whatever the text, for a comparison in constant time. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
