/** Compute sessions of the stand-in manager: their states, their logs and a toy that runs code. */
import { randomUUID } from 'node:crypto';
import { badParameters, noSuch, Problem, quotaExceeded } from './problem.ts';

export const SESSION_STATES = [
  'PENDING',
  'SCHEDULED',
  'PREPARING',
  'RUNNING',
  'TERMINATING',
  'TERMINATED',
  'ERROR',
  'CANCELLED',
] as const;
export type SessionState = (typeof SESSION_STATES)[number];

export interface Session {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly createdAt: string;
  readonly accessKey: string;
  readonly asked: Readonly<Record<string, unknown>>;
  /** In order, as they were reached. */
  readonly states: SessionState[];
  logs: string;
  /** Output lines of code that runs, still to be told, by run id. */
  readonly runs: Map<string, Output[]>;
}

interface Output {
  readonly stream: 'stdout' | 'stderr';
  readonly text: string;
  readonly fails?: boolean;
}

export interface SessionRules {
  /** Milliseconds between two states. */
  stepMs: number;
  /** The state in which new sessions stay, for quotas that never free up and images that cannot be pulled. */
  stuckAt: SessionState | null;
  /** How many live sessions a key may have. */
  maxSessions: number;
}

const ENDED: readonly (SessionState | undefined)[] = ['TERMINATED', 'ERROR', 'CANCELLED'];
const FORWARD: readonly SessionState[] = ['PENDING', 'SCHEDULED', 'PREPARING', 'RUNNING'];

export class Sessions {
  readonly rules: SessionRules = { stepMs: 10, stuckAt: null, maxSessions: 8 };
  readonly all: Session[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();

  create(accessKey: string, asked: Readonly<Record<string, unknown>>): object {
    const { name, image, reuseIfExists } = asked;
    if (typeof name !== 'string' || !/^[\w-]{4,64}$/.test(name))
      throw badParameters('name must have 4 to 64 characters');
    if (typeof image !== 'string' || image === '') throw badParameters('image is required');
    const existing = this.#find(accessKey, name);
    if (existing !== undefined) {
      if (reuseIfExists === true) return this.#created(existing, false);
      throw new Problem(409, 'session-already-exists', 'The session already exists but you requested not to reuse it.');
    }
    const live = this.all.filter((each) => each.accessKey === accessKey && !ENDED.includes(each.states.at(-1)));
    if (live.length >= this.rules.maxSessions) throw quotaExceeded(`at most ${this.rules.maxSessions} sessions`);
    const session: Session = {
      id: randomUUID(),
      name,
      image,
      accessKey,
      asked,
      createdAt: new Date().toISOString(),
      states: ['PENDING'],
      logs: '',
      runs: new Map(),
    };
    this.all.push(session);
    this.#advance(session);
    return this.#created(session, true);
  }

  /** The live session of that name, or the last one that ended. */
  get(accessKey: string, name: string): Session {
    const own = this.all.filter((each) => each.accessKey === accessKey && (each.name === name || each.id === name));
    const found = own.find((each) => !ENDED.includes(each.states.at(-1))) ?? own.at(-1);
    if (found === undefined) throw noSuch('session', `no session "${name}"`);
    return found;
  }

  shown(session: Session): object {
    const { id, name, image, createdAt } = session;
    const status = session.states.at(-1);
    return { sessionId: id, sessionName: name, image, status, created: createdAt, servicePorts: [] };
  }

  /** Rows of `compute_session_list`. */
  rows(accessKey: string, states: readonly string[]): readonly object[] {
    return this.all
      .filter((each) => each.accessKey === accessKey && states.includes(each.states.at(-1) ?? ''))
      .map(({ id, name, image, createdAt, states: reached }) => {
        return { session_id: id, name, image, status: reached.at(-1), created_at: createdAt };
      });
  }

  /** Understands lines `print("…")` and `raise …`; two lines a call, then `continued`. */
  execute(session: Session, { mode, code, runId }: Readonly<Record<string, unknown>>): object {
    if (session.states.at(-1) !== 'RUNNING') {
      throw new Problem(409, 'session-not-running', 'The session is not running.', `it is ${session.states.at(-1)}`);
    }
    if (mode !== 'query' && mode !== 'continue') throw badParameters('mode must be query or continue');
    if (typeof code !== 'string' || typeof runId !== 'string' || runId === '') throw badParameters('code and runId');
    let rest = session.runs.get(runId);
    if (rest === undefined) {
      if (mode === 'continue') throw badParameters('no such run');
      rest = outputs(code);
      session.runs.set(runId, rest);
    }
    const now = rest.splice(0, 2);
    for (const { text } of now) session.logs += text;
    const finished = rest.length === 0;
    if (finished) session.runs.delete(runId);
    const exitCode = finished ? Number(now.some(({ fails }) => fails === true)) : null;
    const console = now.map(({ stream, text }) => [stream, text]);
    return { result: { runId, status: finished ? 'finished' : 'continued', exitCode, console, options: null } };
  }

  destroy(session: Session, forced: boolean): object {
    const state = session.states.at(-1);
    if (ENDED.includes(state)) throw noSuch('session', 'it has ended');
    if (state === 'PENDING' || state === 'SCHEDULED') session.states.push('CANCELLED');
    else if (forced) session.states.push('TERMINATED');
    else {
      session.states.push('TERMINATING');
      this.#later(() => session.states.push('TERMINATED'));
    }
    return { stats: { status: session.states.at(-1)?.toLowerCase() } };
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #find(accessKey: string, name: string): Session | undefined {
    return this.all.find(
      (each) => each.accessKey === accessKey && each.name === name && !ENDED.includes(each.states.at(-1)),
    );
  }

  #created(session: Session, created: boolean): object {
    return { ...this.shown(session), created };
  }

  #advance(session: Session): void {
    this.#later(() => {
      const at = FORWARD.indexOf(session.states.at(-1) ?? 'ERROR');
      const next = FORWARD[at + 1];
      if (at < 0 || next === undefined || session.states.at(-1) === this.rules.stuckAt) return;
      session.states.push(this.rules.stuckAt === 'ERROR' && next === 'PREPARING' ? 'ERROR' : next);
      if (session.states.at(-1) === 'RUNNING') this.#begun(session);
      this.#advance(session);
    });
  }

  /** A batch session runs its command and ends. */
  #begun(session: Session): void {
    const { type, startupCommand } = session.asked;
    if (type !== 'batch') {
      session.logs += `session ${session.name} is ready\n`;
      return;
    }
    session.logs += `$ ${String(startupCommand)}\ndone\n`;
    this.#later(() => {
      session.states.push('TERMINATING');
      this.#later(() => session.states.push('TERMINATED'));
    });
  }

  #later(act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, this.rules.stepMs);
    this.#timers.add(timer);
  }
}

function outputs(code: string): Output[] {
  const found: Output[] = [];
  for (const line of code.split('\n')) {
    const [, printed] = /^\s*print\((?:"([^"]*)"|'[^']*')\)\s*$/.exec(line) ?? [];
    if (printed !== undefined) found.push({ stream: 'stdout', text: `${printed}\n` });
    else if (/^\s*raise\b/.test(line)) {
      found.push({ stream: 'stderr', text: `Error: ${line.trim()}\n`, fails: true });
      break;
    }
  }
  return found;
}
