/** What a command is, and what it gets. */
import { type ConfigInput, type FlagValues, type LoadedConfig, loadConfig } from '../node/config.ts';
import type { SignalSource } from './signal-source.ts';
import type { Terminal } from './terminal.ts';

/** 0 done, 1 failed, 2 the command line or the configuration is wrong. */
export const EXIT = { ok: 0, failure: 1, usage: 2 } as const;

/** A failure whose message is all that the user needs. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT.failure) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** One run of a command. */
export interface Invocation {
  readonly flags: FlagValues;
  readonly positionals: readonly string[];
  /** `--json` was given. */
  readonly json: boolean;
  readonly terminal: Terminal;
  readonly signals: SignalSource;
  /** Everything of the machine that the configuration depends on. */
  readonly machine: Omit<ConfigInput, 'flags'>;
}

/** A flag that is not a setting. */
export interface ExtraFlag {
  readonly flag: string;
  /** Placeholder in the help; empty for a switch. */
  readonly argument: string;
  readonly help: string;
}

export interface Command {
  /** Of a subcommand with its group: `nodes add`. */
  readonly name: string;
  /** The first is what the group does when none is named; their flags are their own. */
  readonly subcommands?: readonly Command[];
  /** Left out of the overview, which is one screen. */
  readonly hidden?: boolean;
  /** In the overview instead of name and positionals. */
  readonly label?: string;
  /** Positional arguments as the help shows them. */
  readonly positionals: string;
  readonly maxPositionals: number;
  /** One line, at most 60 characters. */
  readonly summary: string;
  /** Flags of settings that it takes; null = all. `config` is always taken. */
  readonly settings: readonly string[] | null;
  readonly extra: readonly ExtraFlag[];
  /** @returns the exit code. */
  run(invocation: Invocation): Promise<number>;
}

/** A command that only holds others; alone it does what the first of them does. */
export function group(name: string, summary: string, subcommands: readonly [Command, ...Command[]]): Command {
  const [first] = subcommands;
  const label = `${name} ${subcommands.length > 2 ? '…' : subcommands.map((each) => lastWord(each.name)).join('|')}`;
  return { ...first, name, summary, subcommands, label };
}

/** `add` of `nodes add`. */
export function lastWord(name: string): string {
  return name.slice(name.lastIndexOf(' ') + 1);
}

/** Runs `work`; what it refuses in its input is a usage error. */
export async function refusedAsUsage<T>(work: () => Promise<T> | T): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'invalid_request') throw new CliError((error as Error).message, EXIT.usage);
    throw error;
  }
}

/** The configuration of this run; what is wrong with it is a usage error. */
export function configOf(invocation: Invocation): LoadedConfig {
  try {
    return loadConfig({ ...invocation.machine, flags: invocation.flags });
  } catch (error) {
    throw new CliError(error instanceof Error ? error.message : String(error), EXIT.usage);
  }
}
