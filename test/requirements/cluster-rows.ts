/** What the integration of a Backend.AI cluster asks for: sixteen rows of its page, and two of the pages around it. */
import { type Row, row } from './row-check.ts';

export const ROWS: readonly Row[] = [
  row('C-1', 'the node is a smart client: from a local model to one of the cluster by its name alone'),
  row('C-2', 'HMAC-SHA256 with access and secret key; the secret is never on the wire'),
  row('C-3', 'every request is signed anew, retries included'),
  row('C-4', 'a signature proves who asks; what it does not protect (the body, 15 minutes of replay) is said'),
  row('C-5', 'the cluster provisions sessions and services on request: off by default, once for a model, within caps'),
  row('C-6', 'vFolders are listed, and hold what a service serves'),
  row('C-7', 'local or cluster is decided for each request by the router, and explained'),
  row('C-8', 'the cluster is a citizen: shown, with breaker, priority, statistics and health'),
  row('C-9', 'management over the REST API of the manager, inference over plain OpenAI at the service'),
  row('C-10', 'a pair of keys that sign for clusters, a bearer key for cloud providers'),
  row('C-11', 'models are discovered while they come and go'),
  row('C-12', 'how far data goes is a property of each backend'),
  row('C-13', 'the secret key lies in the keychain, or sealed, and in no other file'),
  row('C-14', 'fine-tuning: sessions are created, run code, show logs and end from the command line'),
  row('C-15', 'batches go to the cluster while this machine stays responsive'),
  row('C-16', 'sensitive data: a hard limit on how far a request goes, on failover too'),
  row('C-17', 'verified when it is saved: connected, auth_error, unreachable or clock_skew'),
  row('C-18', 'a permission that the access key lacks is said in words'),
];
