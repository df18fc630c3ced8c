/** An OpenAI-compatible server in a process of its own: argv[2] host, argv[3] port. Serves the model `boxed`. */
import { json, OpenAiServer } from './openai-server.ts';

const server = await OpenAiServer.start(Number(process.argv[3]), process.argv[2]);
server.models = json(200, { object: 'list', data: [{ id: 'boxed', object: 'model' }] });
process.stdout.write('listening\n');
