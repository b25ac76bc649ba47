import { useId, useRef, useState, type ReactNode } from 'react';

interface PopoverProps {
  label: string;
  /** The content of the button. */
  button: ReactNode;
  pressed?: boolean;
  /** Rendered only while open. */
  children: (close: () => void) => ReactNode;
}

/** A button with a panel in the browser's top layer: light dismiss and Escape are the browser's own. */
export function Popover({ label, button, pressed = false, children }: PopoverProps) {
  const id = useId();
  const trigger = useRef<HTMLButtonElement>(null);
  const panel = useRef<HTMLDivElement>(null);
  const [open, setOpen] = useState(false);

  const place = () => {
    const at = trigger.current?.getBoundingClientRect();
    if (!at || !panel.current) return;
    const width = Math.min(340, window.innerWidth - 16);
    Object.assign(panel.current.style, {
      width: `${width}px`,
      left: `${Math.max(8, Math.min(at.left, window.innerWidth - width - 8))}px`,
      top: `${at.bottom + 6}px`,
      maxHeight: `${Math.max(180, window.innerHeight - at.bottom - 16)}px`,
    });
  };

  return (
    <>
      <button ref={trigger} type="button" className="btn" popoverTarget={id} aria-label={label} aria-haspopup="dialog" aria-pressed={pressed}>
        {button}
      </button>
      <div
        ref={panel} id={id} popover="auto" role="dialog" aria-label={label}
        onBeforeToggle={(event) => {
          if (event.newState === 'open') place();
        }}
        onToggle={(event) => setOpen(event.newState === 'open')}
        className="card fixed inset-auto m-0 overflow-auto p-3 text-text"
      >
        {open && children(() => panel.current?.hidePopover())}
      </div>
    </>
  );
}
