/** A table of requirements against the tests that name its rows: whatever has neither test nor reason is a hole. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** One requirement. Tests carry the ids of the rows that they prove at the beginning of their names. */
export interface Row {
  /** A letter that its table has for itself, a dash and a number. */
  readonly id: string;
  /** One line. */
  readonly meaning: string;
  /** Why no test names it: it cannot apply, or is proved by what the reason names. */
  readonly reason?: string;
}

/** A row, in one line of a table. */
export const row = (id: string, meaning: string, reason?: string): Row => ({
  id,
  meaning,
  ...(reason !== undefined && { reason }),
});

export interface NamedTest {
  readonly file: string;
  readonly name: string;
  readonly ids: readonly string[];
}

const root = path.resolve(import.meta.dirname, '../..');
const TEST_NAME = /\b(?:test|it)\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g;
const IDS_FIRST = /^(?:[A-Z]-\d+[ ,]+)+/;

/** Every test of a source whose name begins with ids of rows. */
export function namedTests(file: string, source: string): NamedTest[] {
  return [...source.matchAll(TEST_NAME)].flatMap(([, , name = '']) => {
    const ids =
      IDS_FIRST.exec(name)?.[0]
        .split(/[ ,]+/)
        .filter((id) => id !== '') ?? [];
    return ids.length === 0 ? [] : [{ file, name, ids }];
  });
}

/** Those of the whole repository. */
export function allNamedTests(): NamedTest[] {
  const files = globSync('test/{unit,integration,e2e}/**/*.test.ts', { cwd: root }).toSorted();
  return files.flatMap((file) => namedTests(file, readFileSync(path.join(root, file), 'utf8')));
}

/** What is wrong between the rows of one table and all tests, one line each. Ids with letters of other tables are theirs. */
export function holes(rows: readonly Row[], tests: readonly NamedTest[]): string[] {
  const known = new Set(rows.map(({ id }) => id));
  const letters = new Set(rows.map(({ id }) => id[0]));
  const proved = new Set(tests.flatMap(({ ids }) => ids));
  return [
    ...rows.flatMap(({ id, reason }) => {
      if (reason === undefined && !proved.has(id)) return [`${id} has no test and no reason`];
      return reason !== undefined && proved.has(id) ? [`${id} has a reason and a test: drop the reason`] : [];
    }),
    ...tests.flatMap(({ file, name, ids }) =>
      ids
        .filter((id) => letters.has(id[0]) && !known.has(id))
        .map((id) => `${file}: "${name}" names ${id}, which is no row`),
    ),
  ];
}

/** Files that reasons name and that do not exist. */
export function missingFiles(rows: readonly Row[]): string[] {
  return rows.flatMap(({ reason = '' }) =>
    [...reason.matchAll(/(?:test|docs)\/[\w./-]+\.(?:ts|md)/g)].flatMap(([file]) =>
      existsSync(path.join(root, file)) ? [] : [file],
    ),
  );
}

/** Each row with the tests that prove it, a line each, for people. */
export function proofLines(rows: readonly Row[], tests: readonly NamedTest[]): string[] {
  return rows.flatMap(({ id, meaning, reason }) => [
    `${id}: ${meaning}`,
    ...(reason === undefined ? [] : [`    no test of its own: ${reason}`]),
    ...tests
      .filter(({ ids }) => ids.includes(id))
      .map(({ file, name }) => `    ${path.basename(file)}: ${name.replace(IDS_FIRST, '')}`),
  ]);
}
