/** Help pages, made from the tables that the parser reads: they cannot drift. Each fits 24 lines of 80 columns. */
import type { Command } from './command.ts';
import { flagsOf } from './flags.ts';

const FLAG_COLUMN = 24;

/** The page that lists all commands. */
export function overview(commands: readonly Command[]): readonly string[] {
  return [
    'meshnode: every model on every machine of your LAN behind one OpenAI endpoint.',
    '',
    'Usage: meshnode COMMAND [flags]',
    '',
    ...commands.map((command) => `  ${`${command.name} ${command.positionals}`.padEnd(18)}${command.summary}`),
    '',
    'meshnode help COMMAND shows its flags. Every command takes --json.',
    'First steps: meshnode start here and on another machine, then meshnode chat.',
  ];
}

/** The page of one command. */
export function commandHelp(command: Command): readonly string[] {
  const flags = flagsOf(command).filter((spec) => !spec.hidden);
  const usage = ['meshnode', command.name, command.positionals].filter((part) => part !== '').join(' ');
  const lines = flags.map((spec) => `  ${`--${spec.flag} ${spec.argument}`.padEnd(FLAG_COLUMN)}${spec.help}`);
  const footer =
    command.settings === null ? ['Flags are also MESHNODE_… variables and config keys: config.example.json.'] : [];
  return [`${usage}: ${command.summary}`, ...lines, ...footer];
}
