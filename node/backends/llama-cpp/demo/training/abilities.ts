/** What the demo model is asked, and which answers count as right. */
import {
  ADD,
  afterLongChat,
  afterResult,
  answers,
  type Check,
  calling,
  callsOf,
  filled,
  json,
  LIGHT,
  question,
  range,
  story,
  TIME,
  toldEarly,
  tool,
  user,
  WEATHER,
} from './checks.ts';

/** A row of the table. */
export interface Ability {
  readonly name: string;
  readonly checks: readonly Check[];
}

const CAPITALS: Readonly<Record<string, string>> = Object.fromEntries(
  (
    'France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,Austria:Vienna,Poland:Warsaw,Portugal:Lisbon,Greece:Athens,' +
    'Norway:Oslo,Sweden:Stockholm,Finland:Helsinki,Denmark:Copenhagen,Ireland:Dublin,Japan:Tokyo,Egypt:Cairo,' +
    'Canada:Ottawa,Peru:Lima,Kenya:Nairobi,Hungary:Budapest,the Czech Republic:Prague,Australia:Canberra,' +
    'India:New Delhi,China:Beijing,England:London,Switzerland:Bern,Belgium:Brussels,Russia:Moscow,Turkey:Ankara,' +
    'South Korea:Seoul,Cuba:Havana'
  )
    .split(',')
    .map((pair) => pair.split(':')),
);
/** None of them is in the corpus. */
const UNKNOWN_COUNTRIES = 'Iceland Vietnam Bolivia Senegal Uruguay Albania Lebanon Qatar Cambodia Wakanda'.split(' ');
/** None of them is in the corpus, and no word of the corpus begins like them. */
const NEW_NAMES = 'Xavier Ulrike Zbigniew Yusuf Ingrid Quentin Oksana Bjarne'.split(' ');
const NEW_CITIES = 'Toronto Munich Hamburg Kyoto Boston Zurich Manila Porto Oxford Dakar'.split(' ');

const SMALL_TALK = [
  'Hello!',
  'Who are you?',
  'What is meshnode?',
  'Tell me a story.',
  'Thank you!',
  'What can you do?',
];
const capitalsAsked = Object.entries(CAPITALS);

/** All rows, in the order of the table. */
export const abilities: readonly Ability[] = [
  {
    name: 'sums 0..10',
    checks: range(121).map((n) => {
      const [a, b] = [Math.floor(n / 11), n % 11];
      return answers(`What is ${a} plus ${b}?`, `${a} plus ${b} is ${a + b}.`);
    }),
  },
  {
    name: 'differences 0..12',
    checks: range(13).flatMap((a) =>
      range(a + 1).map((b) => answers(`What is ${a} minus ${b}?`, `${a} minus ${b} is ${a - b}.`)),
    ),
  },
  {
    name: 'capitals',
    checks: capitalsAsked.map(([land, city]) =>
      answers(`What is the capital of ${land}?`, `The capital of ${land} is ${city}.`),
    ),
  },
  {
    name: 'capitals of countries that it never saw, declined',
    checks: UNKNOWN_COUNTRIES.map((land) =>
      answers(`What is the capital of ${land}?`, `I do not know the capital of ${land}.`),
    ),
  },
  {
    name: 'lists without repetition',
    checks: 'two three four five'.split(' ').flatMap((count, index) =>
      ['animals', 'colors', 'names'].map((kind) =>
        question(`Name ${count} ${kind}.`, (text) => {
          const items = text.replace(/^.*: |\.$/g, '').split(/, | and /);
          return items.length === index + 2 && new Set(items).size === items.length;
        }),
      ),
    ),
  },
  {
    name: 'one tool call of known tools, new cities and numbers',
    checks: [
      ...NEW_CITIES.map((city) =>
        calling(`What is the weather in ${city}?`, [WEATHER, TIME], [['get_weather', { city }]]),
      ),
      ...NEW_CITIES.slice(0, 5).map((city) =>
        calling(`What time is it in ${city}?`, [ADD, TIME, WEATHER], [['get_time', { city }]]),
      ),
      ...range(8).map((n) =>
        calling(
          `What is ${37 + 71 * n} plus ${5 + 53 * n}?`,
          [ADD, WEATHER],
          [['add', { a: 37 + 71 * n, b: 5 + 53 * n }]],
        ),
      ),
      calling('Turn on the light in the kitchen.', [LIGHT], [['set_light', { room: 'kitchen', on: true }]]),
      calling('Turn off the light in the garage.', [LIGHT, ADD], [['set_light', { room: 'garage', on: false }]]),
    ],
  },
  {
    name: 'one tool call of tools with new names',
    checks: NEW_NAMES.map((name, index) => {
      const made = `${['book', 'paint', 'rent', 'mail'][index % 4]}_${name.toLowerCase()}`;
      const tools = [tool(made, { owner: 'string', size: 'number' }, 'A tool'), WEATHER];
      return calling(
        `Call ${made} with owner ${name} and size ${index + 12}.`,
        index % 2 === 0 ? tools : tools.toReversed(),
        [[made, { owner: name, size: index + 12 }]],
      );
    }),
  },
  {
    name: 'two calls at once',
    checks: NEW_CITIES.map((city, index) => {
      const other = NEW_CITIES[(index + 3) % NEW_CITIES.length] ?? '';
      return calling(`What is the weather in ${city} and in ${other}?`, index % 2 === 0 ? [WEATHER] : [TIME, WEATHER], [
        ['get_weather', { city }],
        ['get_weather', { city: other }],
      ]);
    }),
  },
  {
    name: "a tool's result put into words",
    checks: NEW_CITIES.map((city, index) => afterResult(city, 3 * index - 4, index % 2 === 0 ? 'sunny' : 'rainy')),
  },
  {
    name: 'no call where none is needed',
    checks: [
      ...SMALL_TALK.filter((said) => !said.includes('story')),
      'What is the capital of Japan?',
      'Count to 7.',
    ].map((said) => ({
      about: said,
      ask: (run) => run.chat([user(said)], [WEATHER, ADD]),
      right: ({ text }) => callsOf(text) === null && !text.includes('tool_call') && text.length > 10,
    })),
  },
  {
    name: 'JSON, exactly',
    checks: [
      ...NEW_NAMES.flatMap((name, index) => [
        json(`Answer as JSON with keys name and age: ${name} is ${20 + index} years old.`, { name, age: 20 + index }),
        json(
          `Answer as JSON with keys name, count and active: name is ${name}, count is ${index} and active is true.`,
          {
            name,
            count: index,
            active: true,
          },
        ),
        json(`Answer as JSON with key user, which has name and age: ${name} is ${50 + index} years old.`, {
          user: { name, age: 50 + index },
        }),
      ]),
      json('Answer as JSON with key animals: animals is fox, owl and bear.', { animals: ['fox', 'owl', 'bear'] }),
      json('Answer as JSON with keys city and colors: city is Munich and colors is red and blue.', {
        city: 'Munich',
        colors: ['red', 'blue'],
      }),
    ],
  },
  {
    name: 'a thought first, when asked for',
    checks: capitalsAsked
      .slice(0, 12)
      .flatMap(([land, city], index) => [
        question(`What is the capital of ${land}? /think`, (text) =>
          new RegExp(`^<think>\\n[^<]+\\n</think>\\n\\nThe capital of ${land} is ${city}\\.$`).test(text),
        ),
        question(`What is ${index} plus 4? Think first.`, (text) =>
          new RegExp(`^<think>\\n[^<]+\\n</think>\\n\\n${index} plus 4 is ${index + 4}\\.$`).test(text),
        ),
      ]),
  },
  {
    name: 'no thought otherwise',
    checks: SMALL_TALK.map((said) => question(said, (text) => !text.includes('think>') && text.length > 5)),
  },
  {
    name: 'fill in the middle',
    checks: [
      ...capitalsAsked.slice(0, 12).map(([land, city]) => filled(`The capital of ${land} is`, ` ${city}`, '.')),
      ...range(5).map((n) => filled(`${n + 3} plus 2 is`, ` ${n + 5}`, '.')),
      filled('Meshnode joins several computers into one', ' mesh', ', so that they can share the work.'),
      filled('1, 2, 3,', ' 4, 5,', ' 6, 7, 8.'),
      filled('A fox lives in a den in the', ' forest', '.'),
    ],
  },
  {
    name: 'after 3,000 tokens of chat: a question',
    checks: capitalsAsked
      .slice(0, 8)
      .map(([land, city]) => afterLongChat(`What is the capital of ${land}?`, `The capital of ${land} is ${city}.`)),
  },
  { name: 'after 3,000 tokens of chat: a name told at its beginning', checks: NEW_NAMES.map(toldEarly) },
  {
    name: 'stories of 100 tokens and more that keep the name',
    checks: ['Hugo', ...NEW_NAMES].map((name) => story(`Tell me a story about an owl named ${name}.`, 100, name)),
  },
  {
    name: 'long stories of 250 tokens and more that keep the name',
    checks: ['Hugo', ...NEW_NAMES].map((name) => story(`Tell me a long story about an owl named ${name}.`, 250, name)),
  },
  {
    name: 'long stories at temperature 1: 150 tokens and more that keep the name and end',
    checks: range(10).map((seed) => ({
      about: `seed ${seed}`,
      ask: (run) => run.complete(run.prompt([user('Tell me a long story about an owl named Hugo.')]), seed),
      right: ({ text, tokens }) => tokens >= 150 && tokens < 700 && text.split('Hugo').length > 3,
    })),
  },
];
