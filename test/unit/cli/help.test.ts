import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from '../../../cli/command.ts';
import { commandHelp, overview } from '../../../cli/help.ts';
import { COMMANDS } from '../../../cli/main.ts';

const withSubcommands = (command: Command): readonly Command[] => [
  command,
  ...(command.subcommands ?? []).flatMap(withSubcommands),
];

test('every help page fits a screen of 24 lines and 80 columns', () => {
  const all = COMMANDS.flatMap(withSubcommands);
  assert.ok(all.length > COMMANDS.length, 'subcommands have pages too');
  for (const page of [overview(COMMANDS), ...all.map(commandHelp)]) {
    assert.ok(page.length <= 23, `${page[0]}: ${page.length} lines and the prompt`);
    for (const line of page) assert.ok(line.length <= 80, line);
  }
});

test('the overview names every command', () => {
  const text = overview(COMMANDS).join('\n');
  for (const { name, hidden = false } of COMMANDS) if (!hidden) assert.match(text, new RegExp(`^  ${name}\\b`, 'm'));
});
