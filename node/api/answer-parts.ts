/** What a choice of an answer came to, put together from its chunks. */
import type { ChunkEvent, EndEvent, TokenLogprob } from '../../protocols/inference/events.ts';
import type { Dispatch } from '../routing/dispatch.ts';
import { cutShort } from './stream-answer.ts';

/** A whole tool call; `arguments` is one JSON text. */
export interface WholeCall {
  id: string;
  name: string;
  arguments: string;
}

/** One whole choice. */
export interface WholeChoice {
  text: string;
  reasoning: string;
  /** Both, in the order in which they came. */
  said: string;
  readonly calls: WholeCall[];
  /** Null when none were asked for. */
  logprobs: TokenLogprob[] | null;
  /** Of an echoed prompt; null when none were asked for. */
  promptLogprobs: (TokenLogprob | null)[] | null;
  /** Text that begins with the echoed prompt. */
  echo: string;
}

/**
 * Every choice of the answer, and the event that says that they are whole.
 *
 * @throws MeshError what the dispatch throws, and `protocol_violation` for an answer without its end.
 */
export async function collect(events: Dispatch['events']): Promise<{ choices: WholeChoice[]; end: EndEvent }> {
  const choices: WholeChoice[] = [];
  let end: EndEvent | null = null;
  for await (const event of events) {
    if (event.type === 'chunk') {
      const choice = choices[event.choice] ?? emptyChoice();
      choices[event.choice] = choice;
      add(choice, event);
    } else if (event.type === 'end') end = event;
  }
  if (end === null) throw cutShort();
  return { choices: end.finishReasons.map((_, index) => choices[index] ?? emptyChoice()), end };
}

function emptyChoice(): WholeChoice {
  return { text: '', reasoning: '', said: '', calls: [], logprobs: null, promptLogprobs: null, echo: '' };
}

function add(choice: WholeChoice, { text, reasoning = '', toolCalls, logprobs, promptLogprobs }: ChunkEvent): void {
  choice.text += text;
  choice.reasoning += reasoning;
  choice.said += reasoning + text;
  for (const delta of toolCalls ?? []) {
    const call = choice.calls[delta.index] ?? { id: '', name: '', arguments: '' };
    choice.calls[delta.index] = call;
    call.id = delta.id ?? call.id;
    call.name = delta.name ?? call.name;
    call.arguments += delta.arguments;
  }
  if (logprobs !== undefined) {
    choice.logprobs ??= [];
    choice.logprobs.push(...logprobs);
  }
  if (promptLogprobs !== undefined) {
    choice.promptLogprobs = [...promptLogprobs];
    choice.echo = text;
  }
}
