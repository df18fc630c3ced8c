/** `strftime_now` of chat templates: in English wherever the node runs, so that machines of one zone agree on the prompt. */

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** `format` with C's directives filled in, local time. Directives that it does not know stay as they are. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (all, flag: string, directive: string) => {
    const text = directiveText(date, directive);
    if (text === null) return all;
    return flag === '-' ? text.replace(/^0+(?=\d)/, '') : text;
  });
}

function directiveText(date: Date, directive: string): string | null {
  const two = (value: number): string => String(value).padStart(2, '0');
  const [day = '', month = ''] = [DAYS[date.getDay()], MONTHS[date.getMonth()]];
  const hour12 = date.getHours() % 12 || 12;
  switch (directive) {
    case 'Y':
      return String(date.getFullYear());
    case 'y':
      return two(date.getFullYear() % 100);
    case 'm':
      return two(date.getMonth() + 1);
    case 'B':
      return month;
    case 'b':
      return month.slice(0, 3);
    case 'd':
      return two(date.getDate());
    case 'A':
      return day;
    case 'a':
      return day.slice(0, 3);
    case 'H':
      return two(date.getHours());
    case 'I':
      return two(hour12);
    case 'M':
      return two(date.getMinutes());
    case 'S':
      return two(date.getSeconds());
    case 'p':
      return date.getHours() < 12 ? 'AM' : 'PM';
    case '%':
      return '%';
    default:
      return null;
  }
}
