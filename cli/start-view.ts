/** The events of a running node as a person, or a program, wants to read them. */
import type { NodeEvent } from '../node/index.ts';
import { shortFingerprint } from './format.ts';
import { clean, type Terminal } from './terminal.ts';

/** How the user calls us: through npx in a checkout. */
const COMMAND = process.env['npm_command'] === 'exec' ? 'npx meshnode' : 'meshnode';

const WHY_UNLOADED = {
  idle: 'nobody used it',
  evicted: 'another model needed the memory',
  asked: 'as asked',
} as const;

/** Shows one event at a time. */
export interface StartView {
  show(event: NodeEvent): void;
}

/** One JSON object a line. Whoever reads it waits for `ready`, so that comes first: what happens earlier is held back. */
export class JsonView implements StartView {
  readonly #terminal: Terminal;
  #held: NodeEvent[] | null = [];

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(event: NodeEvent): void {
    if (this.#held !== null && event.event !== 'ready') {
      this.#held.push(event);
      return;
    }
    for (const each of [event, ...(this.#held ?? [])]) this.#terminal.json(each);
    this.#held = null;
  }
}

/** Friendly lines; the progress of a loading model is rewritten in place where there is a terminal. */
export class PrettyView implements StartView {
  readonly #terminal: Terminal;
  #rewriting = false;
  #loading: string | null = null;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(event: NodeEvent): void {
    if (event.event === 'model_loading') {
      this.#progress(event.model, event.fraction);
      return;
    }
    this.#endProgress();
    for (const line of this.#lines(event)) this.#terminal.line(line);
  }

  #lines(event: Exclude<NodeEvent, { event: 'model_loading' }>): readonly string[] {
    const paint = this.#terminal.paint;
    switch (event.event) {
      case 'ready':
        return this.#banner(event);
      case 'peer_up':
        return [`${paint('green', '+')} ${this.#peer(event)} joined${has(event.models)}`];
      case 'peer_down':
        return [`${paint('red', '-')} ${this.#peer(event)} ${event.reason === 'goodbye' ? 'left' : 'is lost'}`];
      case 'peer_models':
        return [`${paint('cyan', '~')} ${this.#peer(event)}${has(event.models)}`];
      case 'model_resident':
        return [`${paint('green', '*')} ${clean(event.model)} is loaded (${(event.loadMs / 1000).toFixed(1)} s)`];
      case 'model_unloaded':
        return [`${paint('dim', '*')} ${clean(event.model)} is unloaded (${WHY_UNLOADED[event.reason]})`];
      case 'model_failed':
        return [`${paint('red', '!')} ${clean(event.model)} cannot be loaded: ${clean(event.message)}`];
      case 'warning':
        return [`${paint('yellow', '!')} ${clean(event.message)}`];
      // The command itself says that it drains, at the moment of the signal.
      case 'draining':
        return [];
      case 'stopped':
        return ['stopped'];
    }
  }

  #banner(event: Extract<NodeEvent, { event: 'ready' }>): readonly string[] {
    const paint = this.#terminal.paint;
    const models = event.models.map(clean).join(', ') || 'none here yet';
    return [
      `${paint('bold', 'meshnode')} ${clean(event.version)} is ready: ${paint('bold', clean(event.name))}`,
      `  API          ${paint('cyan', `${event.api}/v1`)}  (OpenAI-compatible)`,
      `  fingerprint  ${event.fingerprint}`,
      `  models       ${models}`,
      `  try          ${COMMAND} chat   or   curl ${event.api}/v1/models`,
      paint('dim', '  Open mesh: every machine on this LAN can join it and use its models. Ctrl-C stops.'),
    ];
  }

  #peer(event: { readonly name: string; readonly fingerprint: string }): string {
    return `${this.#terminal.paint('bold', clean(event.name))} (${shortFingerprint(event.fingerprint)})`;
  }

  #progress(model: string, fraction: number): void {
    const name = clean(model);
    if (!this.#terminal.isTty) {
      if (this.#loading !== name) this.#terminal.line(`loading ${name}`);
      this.#loading = name;
      return;
    }
    const percent = Math.round(Math.min(1, Math.max(0, fraction)) * 100);
    const line = `loading ${name} ${percent} %`.slice(0, this.#terminal.columns - 1);
    this.#terminal.write(`\r\u001b[K${line}`);
    this.#rewriting = true;
  }

  #endProgress(): void {
    if (this.#rewriting) this.#terminal.write('\r\u001b[K');
    this.#rewriting = false;
    this.#loading = null;
  }
}

function has(models: readonly string[]): string {
  if (models.length === 0) return ' without models';
  const shown = models.slice(0, 6).map(clean).join(', ');
  return ` with ${shown}${models.length > 6 ? ` and ${models.length - 6} more` : ''}`;
}
