/** `meshnode drain | pause | resume`: whom the running node works for. */
import { type Command, EXIT } from '../command.ts';
import { connect } from '../node-api.ts';

const SAID: Readonly<Record<string, string>> = {
  draining: 'It takes no new work; what runs is finished. `meshnode resume` opens it again.',
  paused: 'It takes no work of other nodes; its own clients go on. `meshnode resume` opens it again.',
  open: 'It takes work of its clients and of other nodes.',
};

function verb(name: 'drain' | 'pause' | 'resume', summary: string): Command {
  return {
    name,
    positionals: '',
    maxPositionals: 0,
    summary,
    settings: ['data-dir', 'api-key-file'],
    extra: [],
    async run(invocation) {
      const { terminal } = invocation;
      const api = await connect(invocation);
      const answer = await api.tell<{ state: string }>(`/api/v1/node/${name}`, {});
      if (invocation.json) terminal.json(answer);
      else terminal.line(SAID[answer.state] ?? `It is ${answer.state} now.`);
      return EXIT.ok;
    },
  };
}

export const drain: Command = verb('drain', 'take no new work, finish what runs');
export const pause: Command = verb('pause', 'take no work of other nodes; own clients go on');
export const resume: Command = verb('resume', 'take all work again');
