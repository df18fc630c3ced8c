/** The grammar (GBNF, llama.cpp's) that an answer must follow. */
import { readJsonSchema } from '../../../../protocols/inference/bodies/json-schema/schema-reader.ts';
import { MeshError } from '../../../common/errors.ts';
import type { Dialect } from '../prompt/dialect.ts';
import type { Constraint, ToolDefinition } from '../request/generation-request.ts';
import { anyObject } from './json-rules.ts';
import { literal, Rules } from './rules.ts';
import { schemaRule } from './schema-grammar.ts';
import { thoughtRule } from './thought-rule.ts';
import { toolCallRule } from './tool-call-grammar.ts';

export interface GrammarOptions {
  readonly tools: readonly ToolDefinition[];
  /** Null for plain text, where no thoughts are told from the answer. */
  readonly dialect: Dialect | null;
  readonly parallelTools: boolean;
  /** The prompt ends within a thought, which the grammar lets the model finish. */
  readonly startsInReasoning: boolean;
}

/**
 * GBNF with the rule `root`, null where there is nothing to enforce.
 *
 * @throws MeshError `invalid_request` for a schema that cannot be enforced, or a tool that is not there.
 */
export function grammarOf(constraint: Constraint, options: GrammarOptions): string | null {
  if (constraint.type === 'none') return null;
  const rules = new Rules();
  const answer = answerRule(rules, constraint, options);
  const { dialect, startsInReasoning } = options;
  if (dialect === null || !(startsInReasoning || dialect.thinks)) return rules.text(answer);
  const thought = thoughtRule(rules, dialect.thinking.close);
  const before = startsInReasoning ? thought : `(${literal(dialect.thinking.open)} ${thought})?`;
  return rules.text(`${before} ${rules.add(answer)}`);
}

function answerRule(
  rules: Rules,
  constraint: Exclude<Constraint, { type: 'none' }>,
  { tools, dialect, parallelTools }: GrammarOptions,
): string {
  if (constraint.type === 'json') return anyObject(rules);
  if (constraint.type === 'json-schema') {
    return schemaRule(rules, readJsonSchema(constraint.schema, 'response_format.json_schema.schema'), '');
  }
  const { name } = constraint;
  const callable = tools.flatMap((tool, index) =>
    name !== null && tool.name !== name
      ? []
      : [{ name: tool.name, parameters: parametersOf(tool, `tools.${index}.function.parameters`) }],
  );
  if (callable.length === 0) {
    throw new MeshError('invalid_request', "'tool_choice' names a tool that is not among 'tools'.", {
      param: 'tool_choice',
    });
  }
  return toolCallRule(rules, callable, { format: dialect?.tools ?? 'hermes', parallel: parallelTools });
}

function parametersOf({ parameters = true }: ToolDefinition, param: string): ReturnType<typeof readJsonSchema> {
  const shapes = readJsonSchema(parameters, param);
  // Whatever a schema leaves open, arguments are an object.
  return shapes.root.kind === 'any' ? { ...shapes, root: { kind: 'object', members: [], rest: shapes.root } } : shapes;
}
