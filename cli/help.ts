/** Help pages, made from the tables that the parser reads: they cannot drift. Each fits 24 lines of 80 columns. */
import { type Command, lastWord } from './command.ts';
import { flagsOf } from './flags.ts';

const FLAG_COLUMN = 24;
const OVERVIEW_COLUMN = 20;

/** The page that lists all commands. */
export function overview(commands: readonly Command[]): readonly string[] {
  return [
    'meshnode: every model on every machine of your LAN behind one OpenAI endpoint.',
    'Usage: meshnode COMMAND [flags]',
    ...commands.filter(({ hidden = false }) => !hidden).map(overviewLine),
    'meshnode help COMMAND shows its flags; --version; every command takes --json.',
    'First steps: meshnode start here and on another machine, then meshnode chat.',
  ];
}

function overviewLine({ name, positionals, label, summary }: Command): string {
  return `  ${(label ?? `${name} ${positionals}`).padEnd(OVERVIEW_COLUMN)}${summary}`;
}

/** The page of a group: what it holds. Each of them has a page of its own. */
function groupHelp({ name, summary }: Command, subcommands: readonly Command[]): readonly string[] {
  const lines = subcommands.map((each) => {
    const usage = `${lastWord(each.name)} ${each.subcommands === undefined ? each.positionals : 'WORD'}`;
    return `  ${usage.padEnd(FLAG_COLUMN - 1)} ${each.summary}`;
  });
  const alone = `Alone: meshnode ${subcommands[0]?.name}. Flags: meshnode help ${name} WORD.`;
  return [`meshnode ${name} WORD: ${summary}`, ...lines, alone];
}

/** The page of one command. */
export function commandHelp(command: Command): readonly string[] {
  if (command.subcommands !== undefined) return groupHelp(command, command.subcommands);
  const flags = flagsOf(command).filter((spec) => !spec.hidden);
  const usage = ['meshnode', command.name, command.positionals].filter((part) => part !== '').join(' ');
  const lines = flags.map((spec) => `  ${`--${spec.flag} ${spec.argument}`.padEnd(FLAG_COLUMN)}${spec.help}`);
  const footer =
    command.settings === null ? ['Flags are also MESHNODE_… variables and config keys: config.example.json.'] : [];
  return [`${usage}: ${command.summary}`, ...lines, ...footer];
}
