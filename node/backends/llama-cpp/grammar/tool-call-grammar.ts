/** One tool call or several, and nothing else, in the format of the model's dialect. */
import type { SchemaShapes } from '../../../../protocols/inference/bodies/json-schema/shape.ts';
import type { ToolFormat } from '../prompt/dialect.ts';
import { blank, colon } from './json-rules.ts';
import { either, literal, type Rules } from './rules.ts';
import { schemaRule } from './schema-grammar.ts';

/** A model that only calls would never end. */
const MAX_CALLS = 16;

export interface CallableTool {
  readonly name: string;
  readonly parameters: SchemaShapes;
}

/** The expression for an answer of calls of `tools`; of one call at most where `parallel` is false. */
export function toolCallRule(
  rules: Rules,
  tools: readonly CallableTool[],
  { format, parallel }: { readonly format: ToolFormat; readonly parallel: boolean },
): string {
  const key = format === 'llama3' ? 'parameters' : 'arguments';
  const calls = tools.map(({ name, parameters }, index) => {
    const given = schemaRule(rules, parameters, `t${index}-`);
    if (format === 'mistral-named') return `${literal(`${name}[ARGS]`)} ${given}`;
    const [ws, is] = [blank(rules), colon(rules)];
    return `"{" ${ws} "\\"name\\"" ${is} ${literal(JSON.stringify(name))} "," ${ws} "\\"${key}\\"" ${is} ${given} ${ws} "}"`;
  });
  const call = rules.add(either(calls));
  const more = (separator: string, one: string): string =>
    parallel ? `${one} (${separator} ${one}){0,${MAX_CALLS - 1}}` : one;
  switch (format) {
    case 'hermes':
      return more('"\\n"?', rules.add(`"<tool_call>" "\\n"? ${call} "\\n"? "</tool_call>"`));
    case 'llama3':
      return more('";" " "?', call);
    case 'mistral':
      return `"[TOOL_CALLS]" " "? "[" ${more('"," " "?', call)} "]"`;
    case 'mistral-named':
      return more('', rules.add(`"[TOOL_CALLS]" ${call}`));
    case 'generic':
      return parallel ? `(${call} | "[" ${blank(rules)} ${more('"," " "?', call)} ${blank(rules)} "]")` : call;
  }
}
