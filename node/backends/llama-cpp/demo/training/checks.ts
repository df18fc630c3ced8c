/** Kinds of questions to the demo model, each with its right answer. */
import type { Answer, DemoRun, Message } from './demo-run.ts';

/** One question. */
export interface Check {
  readonly about: string;
  readonly ask: (run: DemoRun) => Promise<Answer>;
  readonly right: (answer: Answer) => boolean;
}

/** A user's message. */
export const user = (content: string): Message => ({ role: 'user', content });
/** 0 to `count` - 1. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

/** A question without history. */
export function question(about: string, right: (text: string) => boolean): Check {
  return { about, ask: (run) => run.chat([user(about)]), right: ({ text }) => right(text) };
}

/** A question with one right answer. */
export const answers = (about: string, wanted: string): Check => question(about, (text) => text === wanted);

/** A tool with all its arguments required; `properties` has their types. */
export function tool(name: string, properties: Readonly<Record<string, string>>, description: string): object {
  const typed = Object.fromEntries(Object.entries(properties).map(([key, type]) => [key, { type }]));
  const parameters = { type: 'object', properties: typed, required: Object.keys(properties) };
  return { type: 'function', function: { name, description, parameters } };
}

export const WEATHER = tool('get_weather', { city: 'string' }, 'Get the weather');
export const TIME = tool('get_time', { city: 'string' }, 'Get the time in a city');
export const ADD = tool('add', { a: 'number', b: 'number' }, 'Add two numbers');
export const LIGHT = tool('set_light', { room: 'string', on: 'boolean' }, 'Turn a light on or off');

interface Call {
  readonly name: string;
  readonly arguments: unknown;
}

/** The calls of an answer that consists of nothing else, or null. */
export function callsOf(text: string): Call[] | null {
  const calls = [...text.matchAll(/<tool_call>\n(.*?)\n<\/tool_call>/gs)].map(([, call]) => call ?? '');
  if (calls.map((call) => `<tool_call>\n${call}\n</tool_call>`).join('\n') !== text) return null;
  try {
    return calls.map((call) => JSON.parse(call) as Call);
  } catch {
    return null;
  }
}

/** A question that is answered by exactly these calls. */
export function calling(
  about: string,
  tools: readonly object[],
  wanted: readonly (readonly [string, object])[],
): Check {
  const expected = JSON.stringify(wanted.map(([name, args]) => ({ name, arguments: args })));
  return {
    about,
    ask: (run) => run.chat([user(about)], tools),
    right: ({ text }) => JSON.stringify(callsOf(text)) === expected,
  };
}

/** The turn after a call of get_weather. */
export function afterResult(city: string, degrees: number, sky: string): Check {
  const call = { name: 'get_weather', arguments: { city } };
  const messages: Message[] = [
    user(`What is the weather in ${city}?`),
    { role: 'assistant', content: '', tool_calls: [call] },
    { role: 'tool', content: JSON.stringify({ temperature: degrees, condition: sky }) },
  ];
  return {
    about: `${sky}, ${degrees} degrees in ${city}`,
    ask: (run) => run.chat(messages, [WEATHER]),
    right: ({ text }) => text === `It is ${sky} and ${degrees} degrees in ${city}.`,
  };
}

/** A question that is answered by exactly this JSON. */
export function json(about: string, wanted: object): Check {
  return question(about, (text) => text === spaced(wanted));
}

/** JSON as the corpus has it: a space after commas and colons. */
function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spaced).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${spaced(item)}`);
  return `{${entries.join(', ')}}`;
}

/** Turns that fill most of a context of 4,096 tokens: about 120 tokens each round. */
function longChat(rounds: number): Message[] {
  return range(rounds).flatMap((round) => {
    const to = 8 + (round % 12);
    const fox = ['Anna', 'Ben', 'Clara', 'Leo'][round % 4] ?? 'Anna';
    return [
      user(`Count to ${to}.`),
      {
        role: 'assistant' as const,
        content: `${range(to)
          .map((n) => n + 1)
          .join(', ')}.`,
      },
      user(`My fox is called ${fox}. Where does a fox live?`),
      { role: 'assistant' as const, content: 'A fox lives in a den in the forest.' },
      user('Hello!'),
      { role: 'assistant' as const, content: 'Hello! How can I help you today?' },
    ];
  });
}

/** A question after more than 3,000 tokens of chat. */
export function afterLongChat(about: string, wanted: string, told: readonly Message[] = []): Check {
  return {
    about,
    ask: (run) => run.chat([...told, ...longChat(34), user(about)]),
    right: ({ text, promptTokens }) => text === wanted && promptTokens > 3000,
  };
}

/** A name told before the long chat, asked for after it. */
export function toldEarly(name: string): Check {
  const told: Message[] = [
    user(`My name is ${name}.`),
    { role: 'assistant', content: `Nice to meet you, ${name}! How can I help you?` },
  ];
  return afterLongChat('What is my name?', `Your name is ${name}.`, told);
}

/** A story that ends, of `least` tokens and more, with the name in it. */
export function story(about: string, least: number, name: string): Check {
  return {
    about,
    ask: (run) => run.chat([user(about)]),
    right: ({ text, tokens }) => tokens >= least && tokens < 700 && text.split(name).length > 3,
  };
}

/** A text whose middle is to be found. */
export function filled(prefix: string, middle: string, suffix: string): Check {
  return {
    about: `${prefix}[${middle}]${suffix}`,
    ask: (run) => run.fill(prefix, suffix),
    right: ({ text }) => text === middle,
  };
}
