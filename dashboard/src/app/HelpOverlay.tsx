import { X } from 'lucide-react';
import { useEffect, useRef } from 'react';
import { shortcutsSetting } from './keys';
import { useFlag } from './settings';

const shortcuts: readonly (readonly [string[], string])[] = [
  [['/'], 'Search'],
  [['Space'], 'Pause or resume the live view'],
  [['G'], 'Go to the newest line and follow'],
  [['j', 'k'], 'Next, previous line'],
  [['Enter'], 'Open the selected line'],
  [['w'], 'Wrap long lines'],
  [['Esc'], 'Close the panel'],
  [['?'], 'This help'],
];

export function HelpOverlay({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [enabled, setEnabled] = useFlag(shortcutsSetting, true);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog} onClose={close} aria-labelledby="help-title"
      onClick={(event) => event.target === dialog.current && close()}
      className="card m-auto w-[min(420px,calc(100vw-32px))] p-0 text-text backdrop:bg-black/60"
    >
      <div className="p-6">
        <div className="mb-4 flex items-center">
          <h2 id="help-title" className="text-base font-semibold">Keyboard shortcuts</h2>
          <button type="button" className="btn btn-quiet btn-icon ml-auto" onClick={close} aria-label="Close">
            <X size={16} aria-hidden />
          </button>
        </div>
        <dl className="grid grid-cols-[auto_1fr] items-center gap-x-5 gap-y-2.5 text-[13px]">
          {shortcuts.map(([keys, what]) => (
            <div key={what} className="contents">
              <dt className="flex gap-1">
                {keys.map((key) => (
                  <kbd key={key} className="kbd">{key}</kbd>
                ))}
              </dt>
              <dd className="text-muted">{what}</dd>
            </div>
          ))}
        </dl>
        <label className="mt-5 flex items-center gap-2 border-t border-line pt-4 text-[13px]">
          <input type="checkbox" className="accent-(--accent-strong)" checked={enabled} onChange={(event) => setEnabled(event.target.checked)} />
          Use single-key shortcuts
        </label>
      </div>
    </dialog>
  );
}
